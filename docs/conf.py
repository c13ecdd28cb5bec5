"""
The configuration of Sphinx, which ``tox -e docs`` runs.
"""

from importlib.metadata import version as distribution_version

project = 'large-image-source-vips'
release = version = distribution_version('large-image-source-vips')

extensions = ['myst_nb', 'sphinx.ext.autodoc']
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
# Girder is a server; the documentation does not need one.
autodoc_mock_imports = ['cherrypy', 'girder', 'girder_large_image']

html_theme = 'furo'
html_title = f'{project} {release}'
html_show_copyright = False

# GitHub answers programs that look for headings of its pages with other pages.
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2

# Notebooks run when the documentation is built; a cell that fails stops it.
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 300
suppress_warnings = ['mystnb.unknown_mime_type']
