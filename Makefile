# The daily commands; `make` lists them. They need `pip install -e '.[dev,docs]'`.
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## build the kernels, install in place with all tools
	python -m pip install -e '.[dev,docs]'

test: ## two minutes
	pytest

test-all: ## with the slow tests
	pytest -m ''

lint: ## formats, lint, types, import contract
	bash .ci/lint

format: ## write the formats
	ruff check --fix .
	ruff format .
	git ls-files '*.h' '*.cpp' '*.inl' '*.cu' | xargs clang-format -i

docs: ## the site, in build/site
	sphinx-build -W --keep-going docs build/site

wheel: ## sdist and wheel, in dist
	pyproject-build

ci: ## everything that CI runs, in clean environments
	bash .ci/run

.PHONY: help install test test-all lint format docs wheel ci
