-- What policies may read of the private channel that is asked about, for one transaction. $1 sub-topic, $2 headers as a JSON object.
select pg_catalog.set_config('realtime.topic', $1, true), pg_catalog.set_config('request.headers', $2, true)
