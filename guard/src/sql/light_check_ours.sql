SELECT md5(concat_ws('|', i.schema_version, i.owner,
  (SELECT sum(hashtextextended(concat_ws('|', g.id, g.name, g.enforce), 1)) FROM pgrail.guard g),
  (SELECT sum(hashtextextended(concat_ws('|', r.id, r.rel::oid, r.above), 2)) FROM pgrail.relation r),
  (SELECT sum(hashtextextended(concat_ws('|', a.id, a.root, a.guard, a.max_rows, a.max_cascade_rows, a.max_transaction_rows, a.max_updated_rows,
     a.protect_delete, a.protect_truncate, a.protect_drop, a.protect_drop_partition), 3)) FROM pgrail.assignment a),
  (SELECT sum(hashtextextended(concat_ws('|', m.root, m.rel::oid, m.effect), 4)) FROM pgrail.member m)))
FROM pgrail.install i
