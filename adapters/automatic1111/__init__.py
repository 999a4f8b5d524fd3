"""AUTOMATIC1111's API, ``/sdapi/v1``, which many applications with pictures speak."""
