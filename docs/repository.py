"""Shows files from outside of docs/ on the site, under repository/.

A link to one of them, which works where the repository is read, leads to its page. A hook of
MkDocs: see `hooks` in mkdocs.yml.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
SHOWN = (
    *("CONTRIBUTING.md", "CHANGELOG.md"),
    *("examples/*.py", "benchmarks/results/*.md"),
)
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")  # to a file, in Markdown


def on_files(files, config):
    """Adds a page for each file that is shown; programs as a block of code."""
    for path in sorted(path for pattern in SHOWN for path in ROOT.glob(pattern)):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if path.suffix == ".py":
            text = f"# {path.name}\n\n```python\n{text}```\n"
        page = f"repository/{name.removesuffix('.md')}.md"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, files, **_):
    """Turns links between files of the repository into links between pages."""
    here = posixpath.dirname(_in_repository(page.file.src_uri))
    pages = {_in_repository(uri): uri for uri in files.src_uris}

    def turned(link):
        target = posixpath.normpath(posixpath.join(here, link[0]))
        if target not in pages:
            return link[0]  # MkDocs says what is wrong with it
        return posixpath.relpath(pages[target], posixpath.dirname(page.file.src_uri))

    return _LINK.sub(turned, markdown)


def _in_repository(uri):
    """The file that a page shows."""
    if not uri.startswith("repository/"):
        return f"docs/{uri}"
    name = uri.removeprefix("repository/")
    return name.removesuffix(".md") if name.endswith(".py.md") else name
