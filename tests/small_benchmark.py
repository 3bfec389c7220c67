"""Cells of a benchmark that was never run, with names that would be markup if they were let."""

HOSTILE = '<script>window.pwned=1</script><img id=pwned src=x onerror="window.pwned=1">\'&amp;"'
DATASETS = ("EMP/H3", "prom/prom_300_all", "tf/0", "tf/1", "mouse/0", "virus/covid")
OFFSETS = {"HRQ": 6, "VQVAE": 4, "HRQ untrained": 0, "6-mer counts": 2, f"one-hot {HOSTILE}": -3}


def make_cells(offsets=OFFSETS, datasets=DATASETS) -> list[dict]:
    """Three seeds of models, one of deterministic controls; a collapsed run and one with an error."""
    cells = []
    for place, dataset in enumerate(datasets):
        for at, (model, offset) in enumerate(offsets.items()):
            role = "model" if model in ("HRQ", "VQVAE") else "control"
            for seed in range(1 if "mer" in model or "hot" in model else 3):
                wobble = ((place * 7 + at * 3 + seed * 5) % 11 - 5) / 5
                score, failed = (40 + 5 * place + offset + wobble) / 100, None
                if (model, dataset, seed) == ("VQVAE", "tf/1", 1):
                    score, failed = 0.0, f"collapsed: {HOSTILE}"
                if (model, dataset, seed) == ("HRQ untrained", "EMP/H3", 2):
                    score, failed = None, f"error: {HOSTILE}"
                cells.append(
                    dict(
                        model=model,
                        role=role,
                        dataset=dataset,
                        metric="mcc",
                        seed=seed,
                        test=score,
                        dev=score,
                        failed=failed,
                        attempts=1,
                        seconds=1.0,
                        train_rows=600,
                    )
                )
    return cells
