"""`python -m benchmarks.retrieval`."""

from benchmarks.retrieval.command import main

if __name__ == "__main__":
    main()
