"""The main text of a web page, without its menus, advertising and comments."""

import logging


def main_text(page: str) -> str | None:
    """The text, or None for a page without any; trafilatura (Barbaresi 2021) decides. Nothing is fetched."""
    import trafilatura  # a quarter of a second: only web pages pay for it

    # It logs each page that it cannot use; here such a page becomes a rejected row with its reason.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    text = trafilatura.extract(page, include_comments=False)
    return text if text and text.strip() else None
