"""The table of docs/ecosystem.md: rows are kept by the runs that they tell of, and put into the page together."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

START, END = "<!-- table -->", "<!-- end of table -->"
COLUMNS = (
    "model", "module", "optimizers", "scheduler of its own", "blocks", "tensors", "groups", "lowest rate", "result"
)  # fmt: skip
NUMBERS = ("blocks", "tensors", "groups", "lowest rate")

facts: dict[str, dict[str, str]] = {}


def note(case, plain, look, lowest):
    """Keep what was seen of a case that trained."""
    last = [look.of(index)[-1] for index in range(len(look.optimizers))]
    facts[str(case)] = {
        "optimizers": " + ".join(plain.optimizers),
        "tensors": str(sum(len(update.rates) for update in last)),
        "groups": str(sum(update.groups for update in last)),
        "lowest rate": f"{lowest:.4f}",
    }


def row(case, failures):
    """One line of the table; what failed is said in the last column."""
    module = "its own" if case.own else "plain, around the network"
    return {
        "model": f"{case.name} ({case.package} {version(case.package)})",
        "module": f"{module}, manual optimization" if case.manual else module,
        "scheduler of its own": f"{case.scheduler}: `replace_schedulers=True`" if case.scheduler else "",
        "blocks": str(case.blocks or ""),
        **facts.get(str(case), {}),
        "result": "; ".join(failures) or ("trains" if str(case) in facts else "was not run"),
    }


def keep(path, cases, failures):
    """Write the rows of one environment, failures and all."""
    rows = [row(case, failures.get(str(case), [])) for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def markdown(rows):
    rule = ["---:" if column in NUMBERS else "---" for column in COLUMNS]
    lines = [COLUMNS, rule, *([one.get(column, "") for column in COLUMNS] for one in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(rows):
    packages = {one["model"].rsplit("(", 1)[1].split()[0] for one in rows}
    own = sum(one["module"].startswith("its own") for one in rows)
    good = sum(one["result"] == "trains" for one in rows)
    return f"{len(rows)} models of {len(packages)} packages, {own} of them LightningModules as shipped: {good} train."


def publish(page, files):
    """Put the rows of all ``files`` into the page, between its two marks."""
    rows = [one for file in files for one in json.loads(Path(file).read_text(encoding="utf-8"))]
    text = Path(page).read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    page.write_text(f"{before}{START}\n{summary(rows)}\n\n{markdown(rows)}\n{END}{after}", encoding="utf-8")
    print(summary(rows))


if __name__ == "__main__":
    publish(Path(sys.argv[1]), sys.argv[2:])
