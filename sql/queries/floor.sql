-- What has been trimmed until now.
select floor.snapshot::text as floor_snapshot, floor.xid::text::bigint as floor_xid,
       floor.id as floor_id, floor.tag as floor_tag
from tidings.floor
