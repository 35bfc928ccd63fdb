"""Shows the examples of docstrings as code: griffe knows `Examples:`, they say `Example:`.

An extension of griffe: see `extensions` in mkdocs.yml.
"""

import re

import griffe


class ExampleSections(griffe.Extension):
    """Renames the section."""

    def on_instance(self, *, obj, **_):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
