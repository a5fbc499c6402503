"""Dask: answers for each chunk of an array, and items dealt to the workers of a cluster.

Nothing else loads this room, and only a Dask array or a client does. It knows neither banks nor
estimators: it is handed the function that works on one chunk.
"""
