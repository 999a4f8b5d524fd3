"""The gateway: configuration, routing, the life of models, and the HTTP in front of them.

* configuration: settings (what can be said), config (how it is read), from_environment;
* requests: engine (what routes talk to), router, relay, judge, shims, brought, fetch (links to images), translating,
  background (answers that nobody waits for), unbroken (what is finished once it is begun), accesslog;
* which models there are: catalog, library (pulls and changes), downloads;
* what is in memory: leases (a name -> a loaded model), loads (on a client's word), pool and what it is made of: scheduling,
  residents, room, turns, refusals, keeping, memory; in_memory (the lists), clearing (all must go), watched;
* pictures: painting (a request made complete, and painted), jobs/ (every picture is one), picture_formats;
* what is kept: sessions and conversations, as they are lived; store/, the database below them;
* in front: web/ (HTTP), cli/ (the commands on models), probe/ (what somebody's server can do).
"""
