"""The example service as it is; and on standard output, which instance this is."""

import runpy

from tubthumping import after_restore


@after_restore
def tell(outcome):
    print("instance", outcome.instance, outcome.environment.get("COLOR"), *outcome.arguments, flush=True)


runpy.run_path("/app/service.py", run_name="__main__")
