-- The partitions that a migration makes: today's, those of three days to come, and the default.
create table event_default partition of event default;

do $$
declare
    today constant date := (clock_timestamp() at time zone 'UTC')::date;
    day date;
begin
    for n in 0..3 loop
        day := today + n;
        execute format(
            'create table %I partition of event for values from (%L) to (%L)',
            'event_' || to_char(day, 'YYYYMMDD'),
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
        );
    end loop;
end
$$;
