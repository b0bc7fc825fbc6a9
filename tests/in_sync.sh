#!/usr/bin/env bash
# The package and README are what the notebooks export, and the notebooks are clean; otherwise say so and fail.
# Everything is made in a copy: a broken notebook must not take the package with it.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r nbs settings.ini setup.py pyproject.toml params.yaml README.md "$copy"
mkdir "$copy/reports" && cp -r --parents reports/*/metrics.json reports/*/error_by_horizon.csv "$copy" 2>/dev/null || true
cp -r medlab "$copy"
find "$copy/medlab" -name '*.py' ! -name '__init__.py' -delete # a module whose notebook is gone must not survive
(
    cd "$copy"
    nbdev_export
    nbdev_clean
    MEDLAB_ROOT="$copy" python -c "from medlab.run.readme import main; main()"
)
differ=$(for part in nbs medlab README.md; do diff -rq -x __pycache__ -x '.ipynb_checkpoints' -x '.ruff_cache' "$part" "$copy/$part" || true; done)
if [ -n "$differ" ]; then
    echo "Notebooks, package and README are out of step. Run: nbdev_export && nbdev_clean && python -c 'from medlab.run.readme import main; main()'"
    echo "$differ" | sed "s#$copy/##"
    exit 1
fi
echo "in sync: notebooks, package and README"
