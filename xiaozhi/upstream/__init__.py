"""What stands between this server and the services it depends on: who is asked, who is left alone, who is asked twice.

The decisions are pure and take the time as an argument (`breaker`, `choice`, `budget`, `latency`, `retry_after`);
`pool` puts them together for any kind of upstream.
"""
