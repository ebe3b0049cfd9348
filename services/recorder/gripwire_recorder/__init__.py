"""gripwire_recorder: what happens on the bus becomes LeRobot episodes.

While an episode is recorded, every message of the journalled topics goes to a journal, ``journals/*.mcap``
(journal.py). The worker, a process of its own, makes the episode of the journal, following it about half a
second behind (worker.py, saving.py). The journal goes only when the episode is durable and verified; those
that an earlier recorder left are made into episodes at the next start.

Every camera slot, ``robot/state``, ``robot/action`` and ``reward`` are aligned on true capture times to one
rate (10 rows a second unless ``[recorder] fps`` says otherwise) and written as a LeRobot v3.0 dataset under
``datasets/NAME``. Row i stands for one moment; it has

- ``observation.images.<cam>``: the picture taken nearest to it (video, H.264)
- ``observation.state``: the six joints at it, interpolated; ``action``: the goal in force at it (the last one
  really sent; before the first, and while the arm is limp, the state). Both float32 (6,), LeRobot's units,
  ``shoulder_pan.pos`` ... ``gripper.pos``
- ``next.reward`` float32: 1 where the reward service decided success about this row's picture, else 0;
  ``next.done`` bool: the last row
- ``gripwire.reward.probability`` float32 (-1 where the picture has no valid reward), ``.logit`` float32,
  ``.epoch`` int64 (-1: none; meta/gripwire.jsonl names the bundle of each epoch)
- ``gripwire.verdict`` int64: what a person had said by then: 1 success, 0 failure, -1 nothing
- ``gripwire.intervention`` int64: 1 while a person had taken over from the policy
- ``gripwire.<cam>.t_capture`` int64: when the picture was taken, CLOCK_MONOTONIC ns
- ``gripwire.<cam>.seq`` int64: the ``seq`` of its message on ``camera/<cam>``
- ``gripwire.<cam>.exposure`` int64: the camera's own number of the exposure, -1 if it gives none
- ``gripwire.<cam>.skew_ms`` float32: how much later than its row the picture was taken
- ``gripwire.<cam>.gap_ms``, ``gripwire.state.gap_ms`` float32: how far apart the two pictures (states) are
  that the row lies between
- and LeRobot's own ``timestamp`` (i / fps), ``frame_index``, ``episode_index``, ``index``, ``task_index``

``meta/gripwire.jsonl`` has a line per episode: ``episode``, ``rows``, ``session`` (one id per run of the
recorder), ``task``, ``host``, ``started`` (wall clock, s), ``t_start`` (CLOCK_MONOTONIC ns), ``journal`` (its
name), ``recovered`` (the recorder was killed in it), ``drops`` (messages lost, by topic), ``worst_skew_ms``,
``worst_gap_ms`` by stream, ``hole`` (a silence longer than ``[recorder] hole_s``), ``models`` (bundle by
epoch), ``verdicts``, ``unreadable`` (pictures that did not decode) and ``problem`` (all of that in words).

Promises: an episode that is reported saved is durable (fsync) and opens in LeRobot; nothing saved is ever
touched again, whatever happens to the recorder (store.py says how); every row's picture is the one its
columns name; of an episode that was open when the recorder was killed at most the last second is lost.

On the topic ``episode``: ``recording`` while an episode is recorded, even if an earlier one is still being
saved (``rows`` grows, twice a second); else ``saving`` while anything is not yet durable (then ``problem``
says why it does not get on, e.g. a full disk); else ``idle``, with the figures of the last episode.
``saved`` counts the episodes that became durable since the recorder started. An episode that could not be
saved is an ``idle`` message with ``problem`` and an unchanged ``saved``; its journal is kept under
``journals/aside`` with the reason beside it.
"""
