"""Makes `import manyheads` work in the folder that contains this checkout.

There Python takes the checkout's folder, if it is called manyheads, for the package, even where the
package itself is installed. This file loads the package from `src` instead.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "manyheads":
    _package = Path(__file__).parent / "src" / "manyheads"
    _spec = spec_from_file_location(
        __name__, _package / "__init__.py", submodule_search_locations=[str(_package)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    # Imports take the module from here, once this file has run.
    sys.modules[__name__] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
