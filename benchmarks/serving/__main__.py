"""`python -m benchmarks.serving`."""

from benchmarks.serving.command import main

if __name__ == "__main__":
    main()
