"""The dialect ``libretranslate``: LibreTranslate's."""
