# Every target sets up what it needs: .venv is created once and reused until pyproject.toml or constraints.txt change.
.DEFAULT_GOAL := help
.PHONY: help demo test lab dashboard study lock clean

PYTHON ?=
TORCH ?= default
SETUP = PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh .ci/setup
CVI = .venv/bin/cvi
DEMO_RUN = from cvi_widgets import RunConfig as C; print(C.of("dsprites", "beta_vae", beta=4, seed=0, preset="demo").run_id)
DISPLAYED = [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]

help: ## this list
	@echo "cvi_widgets: causal questions of variational autoencoders"
	@echo
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 20
	@echo
	@echo "  PYTHON=/path/to/python3.11   the Python to create .venv with (3.11 or newer)"
	@echo "  TORCH=cpu                    PyTorch's CPU build, for machines without a GPU (default: what your index offers)"
	@echo "  CVI_HOME=/path               where data and runs live (default: your cache folder, and ./runs)"

demo: .venv/.ready ## train a beta-VAE on dSprites, intervene, measure, and write the report (minutes)
	@echo "Training a beta-VAE on dSprites, intervening, measuring, and writing the report; Ctrl-C leaves a run that resumes."
	@$(CVI) run dsprites beta_vae --beta 4 --seed 0 --preset demo
	@if $(DISPLAYED); then $(CVI) open "$$(.venv/bin/python -c '$(DEMO_RUN)')"; \
	else echo "The report, named above, is one file: open it in any browser; it needs no network."; fi

test: .venv/.ready-dev ## lint, types, and every test with its coverage
	@sh .ci/browser
	@echo "Lint (ruff) ..."
	@.venv/bin/ruff check .
	@echo "Types (mypy) ..."
	@.venv/bin/mypy
	@echo "Tests (pytest) ..."
	@.venv/bin/python -m pytest --cov=cvi_widgets --cov-report=term-missing:skip-covered --durations=10

lab: .venv/.ready ## JupyterLab on the notebooks
	@echo "Starting JupyterLab on notebooks/; Ctrl-C twice ends it."
	@PANEL_INLINE=true .venv/bin/jupyter lab --ServerApp.root_dir=notebooks $$([ "$$(id -u)" != 0 ] || echo --allow-root)

dashboard: .venv/.ready ## serve the newest run's dashboard on this machine
	@$(CVI) dashboard

study: .venv/.ready ## run the small example study: two data sets, two models, a report each
	@$(CVI) study run smoke

lock: .venv/.ready-dev ## write the versions that .venv holds into constraints.txt
	@.venv/bin/python .ci/lock.py > constraints.tmp && mv constraints.tmp constraints.txt
	@touch .venv/.ready .venv/.ready-dev
	@echo "constraints.txt holds $$(grep -c == constraints.txt) versions."

clean: ## remove .venv, caches and builds; runs, reports and notebooks stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* build dist *.egg-info
	@find . -name .git -prune -o -name runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed .venv, caches and builds; runs/, reports/ and notebooks/ are as they were."

.venv/.ready: pyproject.toml constraints.txt
	@$(SETUP)
	@touch $@

.venv/.ready-dev: pyproject.toml constraints.txt
	@$(SETUP) dev
	@touch .venv/.ready $@
