SELECT md5(concat_ws('|', i.schema_version, i.owner, i.digest,
  (SELECT sum(hashtextextended(concat_ws('|', g.id, g.name, g.enforce, g.capture_seconds, g.capture_rows), 1)) FROM pgrail.guard g),
  (SELECT sum(hashtextextended(concat_ws('|', r.id, r.rel::oid, r.above), 2)) FROM pgrail.relation r),
  (SELECT sum(hashtextextended(concat_ws('|', a.id, a.root, a.guard, a.max_rows, a.max_cascade_rows, a.max_transaction_rows, a.max_updated_rows,
     a.protect_delete, a.protect_truncate, a.protect_drop, a.protect_drop_partition), 3)) FROM pgrail.assignment a),
  (SELECT sum(hashtextextended(concat_ws('|', w.id, w.guards, w.exemption, w.object, w.role, w.operations, w.roots, w.unlimited, w.max_rows, w.max_cascade_rows,
     w.max_transaction_rows, w.max_updated_rows, extract(epoch FROM w.not_before), extract(epoch FROM w.not_after), w.total_rows), 5)) FROM pgrail.allowance w),
  (SELECT sum(hashtextextended(concat_ws('|', m.root, m.rel::oid, m.effect), 4)) FROM pgrail.member m)))
FROM pgrail.install i
