"""Training for flows, and for any NNX model that contains one.

The names are those of `__init__.pyi`; each brings what it needs when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
