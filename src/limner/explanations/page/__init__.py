"""The learning page: one HTML file that explains a caption, its search and its scores."""

from limner.explanations.page.content import PageContent, collect
from limner.explanations.page.document import PAGE, write_page
from limner.explanations.page.references import find_references

__all__ = ["PAGE", "PageContent", "collect", "find_references", "write_page"]
