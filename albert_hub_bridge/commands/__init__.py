"""The verbs of the package, one module each: convert, inspect, verify, check, publish (card and push).

A verb imports no other verb. `pipeline` alone imports several: it runs convert, verify and push in one go.
"""
