"""Compares rankers by the probability of single candidates: `python -m benchmarks.ctr --configs configs/ml_1m.toml`."""

from benchmarks.evidence import command

_CONFIGS = "configs/movietweetings_100k.toml,configs/ml_1m.toml"


def main() -> None:
    """The command."""
    flags = command.parse_flags(
        "benchmarks.ctr",
        "Trains every ranker of the registry and compares AUC, LogLoss and per-user AUC, with paired intervals.",
        _CONFIGS,
        "configs/tiny.toml",
    )
    command.main(flags, "ctr", "Click-through rate: this project and its peers", wants_ranking=False)


if __name__ == "__main__":
    main()
