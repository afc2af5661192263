"""The commands of the package, one module each: convert, inspect, verify, publish (card and push).

A command imports no other command. Only `pipeline` imports several: it runs convert, verify and push in one go.
"""
