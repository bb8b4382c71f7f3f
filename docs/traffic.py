"""``docs/traffic.md``: the profiles with their peaks, made from the code."""

from __future__ import annotations

from planning.cold_start import LOAD_WINDOW_S
from planning.traffic import PROFILES, profile_names, shape
from settings import WorkingHours, open_hours

_TEXT = f"""# Traffic

Made from `planning/traffic.py` by `make docs`. A profile says how a tier's requests spread over the week;
`requestsPerDay` says how many there are. Profiles come from public traces
([sources](../planning/facts/data/SOURCES.md#traces)); hours are those of the schedule's time zone, and `office-hours`
and `batch-window` keep to its working hours (here: Monday to Friday, 8 to 18). The resolution in a trace's name may
be left out: `servegen_m_large` is the hourly file.

Busiest hour: over the mean hour of the week. Busiest minutes: the busiest {LOAD_WINDOW_S // 60} minutes (or the
trace's step, where that is longer) over the mean of their hour; of traces under a day, over the mean of the trace.
Lasts: how long such a burst does. Hourly traces without a finer file, and the profiles, have the bursts of
`servegen_m_large_10min`.

| profile | busiest hour | busiest minutes | lasts | what it is |
|---|---|---|---|---|
"""

_MORE = """
`traffic.peakOverMean` sets another busiest hour and keeps the order of the hours; `growthPercentPerMonth` tilts the
month; `burstiness` is the coefficient of variation of the time between requests.

## From requests to replicas

The autoscaler reads the running requests on average over five minutes and holds the most replicas that any such mean
of its window asked for (the window is the tier's cooldown, at most an hour). The forecast works out what that is on
average: load moves within an hour by the profile's bursts and by chance (random arrivals), so a window often asks for
one replica more than its mean load, and the fewer requests a replica takes, the more. `python -m planning replay
STACKFILE --trace FILE.csv` plays a trace request by request through such an autoscaler and Karpenter, and compares
the two bills.

## A trace of your own

`python -m planning replay` takes a CSV file, and so does `traffic.profile`: a path with a slash or `.csv` in it
(`profile: ./week.csv`) is read relative to the stack file. Names are lower case, columns are separated by commas,
others than these are ignored:

- Steps: `minute`, `hour` or `t_start_s` (seconds), and `requests`, `input_tokens` and `output_tokens`. A line holds the
  sums over the step that starts then; steps are equal, and a whole number of them fits into an hour.
- Requests: `t_s` (seconds), `input_tokens` and `output_tokens`. A line is one request, in order of time. They are
  summed over minutes from the first request on; the last minute is left out, as the file may stop within it.

A trace is repeated to a month; its first step is Monday 00:00. It gives the shape: how many requests there are and how
long they are on average stays what the tier says. As a profile it gives the hours and bursts of requests only; the
replay also follows how their lengths change from hour to hour. A trace of less than a day tells no hours apart: it
gives a flat week with its own bursts.
"""


def traffic_page() -> str:
    """The page of the profiles and of what follows from them."""
    meanings = {profile.name: profile.meaning for profile in PROFILES}
    working, lines = open_hours(WorkingHours()), list[str]()
    for name in profile_names():
        week = shape(name, working)
        bursts = week.bursts(0.5)
        what = meanings.get(name) or week.source
        lines.append(
            f"| `{name}` | {week.peak_over_mean:.2f} | {bursts.peak:.2f} | {bursts.lasts_s / 60:.0f} min | {what} |"
        )
    return _TEXT + "\n".join(lines) + "\n" + _MORE
