"""Evaluates the matchConditions of webhooks as an API server does, by Google's own implementation of CEL in C++. That in API
servers is the one in Go; both have to pass the same conformance tests.

Knows the variables `object`, `oldObject` and `request`, and refuses what names another: `authorizer`, which would have to
ask a cluster, and `namespaceObject`, which webhooks are not given. Counts no costs. Used by api_server.py, and by
tests/it/support/conditions.rs:

stdin     {"conditions": [{"name": ..., "expression": ...}], "requests": [AdmissionRequest]}
stdout    JSON: for each request the list of what each condition says of it, true, false or a text, which is an error
"""

import json
import sys

from cel_expr_python import cel

ENVIRONMENT = cel.NewEnv(variables={name: cel.Type.DYN for name in ("object", "oldObject", "request")})


class Wrong(Exception):
    """An expression that is none, or that cannot say true or false of a request."""


def condition(expression):
    """What an expression says of a request, as a function; checked as API servers check it before they store it."""
    try:
        compiled = ENVIRONMENT.compile(expression)
    except RuntimeError as error:
        raise Wrong(str(error)) from error
    if compiled.return_type() != cel.Type.BOOL:
        raise Wrong(f"must evaluate to bool, and is of type {compiled.return_type()}")

    def holds(request):
        values = {"object": request["object"], "oldObject": request["oldObject"], "request": request}
        result = compiled.eval(data=values)
        # An error is a value like any other here.
        if result.type() != cel.Type.BOOL:
            raise Wrong(str(result.value()))
        return result.value()

    return holds


def said(expression, request):
    try:
        return condition(expression)(request)
    except Wrong as wrong:
        return str(wrong)


def main():
    given = json.load(sys.stdin)
    expressions = [one["expression"] for one in given["conditions"]]
    told = [[said(expression, request) for expression in expressions] for request in given["requests"]]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
