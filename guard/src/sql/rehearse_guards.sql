-- Guard and table of assignments.
SELECT g.name AS guard, r.label AS "table" FROM pgrail.assignment a JOIN pgrail.guard g ON g.id = a.guard JOIN pgrail.relation r ON r.id = a.root
WHERE a.id = ANY ($1) ORDER BY 1, 2
