#!/usr/bin/env bash
# The package and README are what the notebooks export, and the notebooks are clean; otherwise say so and fail.
set -euo pipefail
cd "$(dirname "$0")/.."
fingerprint() { { find medlab -name '*.py' -print0; find nbs -name '*.ipynb' -not -path '*/.*' -print0; printf 'README.md\0'; } | sort -z | xargs -0 sha256sum; }
before=$(fingerprint)
modules=$(find medlab -name '*.py' ! -name '__init__.py' ! -name '_modidx.py' | sort)
rm -f $modules # a module whose notebook is gone must not survive
nbdev_export
nbdev_clean
python -c "from medlab.run.readme import main; main()"
after=$(fingerprint)
if [ "$before" != "$after" ]; then
    echo "Notebooks, package and README were out of step; these files have just been brought into step (commit them):"
    diff <(echo "$before") <(echo "$after") | awk '/^[<>]/ {print "  " $3}' | sort -u
    exit 1
fi
echo "in sync: notebooks, package and README"
