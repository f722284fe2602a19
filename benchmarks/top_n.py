"""Compares rankers by the place of the positive in its slate: `python -m benchmarks.top_n --configs configs/ml_1m_honest.toml`."""

from benchmarks.evidence import command

_CONFIGS = "configs/ml_1m_rim.toml,configs/ml_1m_honest.toml"


def main() -> None:
    """The command."""
    flags = command.parse_flags(
        "benchmarks.top_n",
        "Trains every ranker of the registry and compares HR@k, NDCG@k and MRR, with paired intervals.",
        _CONFIGS,
        "configs/tiny_top_n.toml",
    )
    command.main(flags, "top_n", "Top-N: this project and its peers", wants_ranking=True)


if __name__ == "__main__":
    main()
