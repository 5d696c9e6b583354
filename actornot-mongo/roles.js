// The roles of actornot on MongoDB: mongosh DATABASE roles.js
// With another namespace than `actornot`, set NAMESPACE first: mongosh DATABASE --eval 'NAMESPACE = "orders"' roles.js
const namespace = typeof NAMESPACE === "undefined" ? "actornot" : NAMESPACE;
const parts = ["entity", "message", "meta"];
const on = (actions) =>
  parts.map((part) => ({ resource: { db: db.getName(), collection: `${namespace}_${part}` }, actions }));

// Runs: open it with MongoConfig::never_install().
db.createRole({
  role: `${namespace}_run`,
  privileges: on(["find", "insert", "update", "remove"]),
  roles: [],
});

// Migrates: MongoQueue::install().
db.createRole({
  role: `${namespace}_migrate`,
  privileges: on(["find", "insert", "update", "remove", "createCollection", "createIndex"]),
  roles: [],
});
