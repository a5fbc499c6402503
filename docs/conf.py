"""Settings of the documentation site.

    pip install '.[docs]' && sphinx-build -W --keep-going docs build/site

Without a network, names of other projects are left unlinked; ``-t online`` links them.
"""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.errors import ExtensionError

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext")]
# More threads than cores would slow the examples down, and most of their work is small.
os.environ.setdefault("OMP_NUM_THREADS", "2")

project = "micfast"
author = "The micfast developers"
copyright = author
release = version = version_of("micfast")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "matplotlib.sphinxext.plot_directive",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "performance",
]
templates_path = ["_templates"]
exclude_patterns = ["_ext", "_templates"]
nitpicky = True

# -- other projects ------------------------------------------------------------------------------

if tags.has("online"):  # noqa: F821 - Sphinx defines it
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|np|numpy|sklearn|matplotlib|aeon|tslearn|scipy|pathlib|os)\..*"),
    # Words of numpydoc's type descriptions and Python's own types.
    (r"py:.*", r"(?!micfast\b)[A-Za-z_]+"),
    # A base class without a page.
    (r"py:class", r"micfast\.classify\.parameters\.SettingsParameters"),
]

# -- docstrings ----------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings describe the types in words
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
# One page per object of micfast's surface; methods stand on their class's page.
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_attributes_as_param_list = True

# -- Markdown ------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Files of the repository that the site shows elsewhere.
REPOSITORY_LINKS = {
    "../bench/results/solvers.md": "performance/solvers.md",
    "../bench/results/solvers.png": "performance/solvers.png",
    "../bench/results/latency.md": "performance/latency.md",
    "../bench/results/load.md": "performance/load.md",
}

# -- gallery and pictures ------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "show_memory": False,
    "download_all_examples": False,
    # Times of the documentation's build say nothing about speed.
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "reference_url": {"micfast": None},
    "doc_module": ("micfast",),
    "backreferences_dir": "examples/backreferences",
}
plot_include_source = False
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 160)]
plot_apply_rcparams = True
plot_rcparams = {"figure.figsize": (7, 3.4), "font.size": 10}

# -- output --------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "micfast"
html_static_path = ["_static"]
html_css_files = ["micfast.css"]
html_copy_source = False
# Pages without subpages need no sidebar.
ALONE = (
    "quickstart",
    "how_it_works",
    "pytorch",
    "faq",
    "comparison",
    "reproduction",
    "better",
    "conventions",
)
html_sidebars = {page: [] for page in ALONE}
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 4,  # so many fit on one line
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def _repository_links(app, docname, source):
    """Make links that are correct in the repository lead to the site's own pages."""
    for there, here in REPOSITORY_LINKS.items():
        source[0] = source[0].replace(f"]({there})", f"]({here})")


def _all_names_documented(app):
    """Raise an error if the reference lacks a public name."""
    import micfast

    listed = (HERE / "api.md").read_text(encoding="utf-8").split()
    public = {name for name in micfast.__all__ if not name.startswith("_")}
    if missing := sorted(public - set(listed)):
        raise ExtensionError(f"docs/api.md lacks {', '.join(missing)}")


def setup(app):
    """Register the functions above."""
    app.connect("source-read", _repository_links)
    app.connect("builder-inited", _all_names_documented)
