"""What is deployed on the proxies that take modules, and the deployment itself."""

import json
import os

from compare.work import post

POOLED = {"mode": "pooled", "size": 4}
FRESH = {"mode": "request"}


class Guests:
    """The guests in one directory. `missing` is what a run would have needed and did not find."""

    def __init__(self, directory):
        self._directory = os.path.abspath(directory)
        self.missing = set()

    def auth(self, instance):
        return self._modules(["auth"], instance)

    def chain_of_five(self, instance):
        return self._modules(["minimal"] * 5, instance)

    def three(self, instance):
        # Not ratelimit: it would refuse what is sent here.
        return self._modules(["auth", "logging", "minimal"], instance)

    def hostile(self, instance):
        return self._modules(["hostile"], instance)

    def both_hooks(self, name, instance):
        return self._modules([name], instance, ("OnRequest", "OnResponse"))

    def one_of(self, count, instance):
        """As many modules, of which one applies to what is sent here."""
        modules = self._modules(["minimal"] * count, instance)
        aside = ({**module, "match": {"paths": ["/elsewhere/*"]}} for module in modules[1:])
        return modules and (modules[0], *aside)

    def path(self, name):
        return os.path.join(self._directory, f"{name}.wasm")

    def _exists(self, name):
        return os.path.isfile(self.path(name))

    def _modules(self, names, instance, hooks=("OnRequest",)):
        """None if a guest is not built."""
        absent = {name for name in names if not self._exists(name)}
        self.missing |= absent
        if absent:
            return None
        return tuple(
            {
                "name": f"{name}-{number}",
                "file_path": self.path(name),
                "module_type": "Middleware",
                "attach_points": [{"Middleware": hook} for hook in hooks],
                "allow_duplicate": True,
                "instance": instance,
            }
            for number, name in enumerate(names)
        )


def deploy(proxy, port, modules):
    """Returns what went wrong, or None. The peer gets the fields it knows, and no file twice: it refuses that."""
    if not modules:
        return None
    if not proxy.takes_settings:
        distinct = {module["file_path"]: module for module in modules}
        own = ("allow_duplicate", "instance")
        modules = [{k: v for k, v in module.items() if k not in own} for module in distinct.values()]
    status, body = post(
        port, "/wasm", json.dumps({"modules": list(modules)}), {"content-type": "application/json"}, timeout=60
    )
    return None if status == 200 else f"deploy answered {status}: {_errors(body)}"


def _errors(body):
    try:
        results = [module["add_result"] for module in json.loads(body)["modules"]]
        return "; ".join(result["Error"] for result in results if "Error" in result)
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
