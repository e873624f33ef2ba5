"""The site of the executed notebooks: `make site`, then open .site/html/site/index.html."""

project = "Video domain adaptation, in notebooks"
copyright = "the contributors, MIT licence"
html_title = "Video domain adaptation"
extensions = ["myst_nb", "sphinx-mathjax-offline"]  # nothing on the pages is fetched from elsewhere
root_doc = "site/index"
include_patterns = ["site/*.md", "notebooks/[0-9]*.ipynb", "docs/*.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/overview.png"]

nb_execution_mode = "off"  # the notebooks are committed executed
nb_ipywidgets_js = {}  # sliders need a kernel; their stills are in the notebooks
nb_merge_streams = True
nb_scroll_outputs = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# Links into the code are for a checkout, and a table's $x$ may hold a bar.
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
