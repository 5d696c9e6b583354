//! What tests need a server of.

/// A kind of server, with the settings that tests want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// PostgreSQL, for the superuser `postgres`; the role `locked` must say its password, `secret`.
    Postgres,
    /// PgBouncer in transaction mode, in front of [`Postgres`](Self::Postgres).
    PgBouncer,
    /// MongoDB, a replica set of one member: it has transactions.
    Mongo,
    /// As [`Mongo`](Self::Mongo), and it asks for the password in its URL, and enforces roles.
    MongoAuth,
    /// MongoDB without a replica set.
    MongoStandalone,
    /// MongoDB, a replica set of three members, which elects another primary within seconds.
    MongoThree,
    /// Redis, which writes each command to disk before it answers.
    Redis,
    /// Redis Cluster: three primaries.
    RedisCluster,
    /// Redis Cluster: three primaries with a replica each, which takes over within seconds.
    RedisClusterReplicas,
}

impl Service {
    /// Those that all tests share; the others are for tests that hurt them.
    pub const SHARED: [Self; 7] = [
        Self::Postgres,
        Self::PgBouncer,
        Self::Mongo,
        Self::MongoAuth,
        Self::MongoStandalone,
        Self::Redis,
        Self::RedisCluster,
    ];

    pub(super) const ALL: [Self; 9] = [
        Self::Postgres,
        Self::PgBouncer,
        Self::Mongo,
        Self::MongoAuth,
        Self::MongoStandalone,
        Self::MongoThree,
        Self::Redis,
        Self::RedisCluster,
        Self::RedisClusterReplicas,
    ];

    /// Its name, as the program `servers` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
            Self::Mongo => "mongo",
            Self::MongoAuth => "mongo-auth",
            Self::MongoStandalone => "mongo-standalone",
            Self::MongoThree => "mongo-three",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
            Self::RedisClusterReplicas => "redis-cluster-replicas",
        }
    }

    /// The service with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// The environment variable that names a server which is there already.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "ACTORNOT_POSTGRES_URL",
            Self::PgBouncer => "ACTORNOT_PGBOUNCER_URL",
            Self::Mongo => "ACTORNOT_MONGO_URL",
            Self::MongoAuth => "ACTORNOT_MONGO_AUTH_URL",
            Self::MongoStandalone => "ACTORNOT_MONGO_STANDALONE_URL",
            Self::MongoThree => "ACTORNOT_MONGO_THREE_URL",
            Self::Redis => "ACTORNOT_REDIS_URL",
            Self::RedisCluster => "ACTORNOT_REDIS_CLUSTER_URL",
            Self::RedisClusterReplicas => "ACTORNOT_REDIS_CLUSTER_REPLICAS_URL",
        }
    }

    /// How to get its program onto this machine by hand.
    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::Postgres => "apt-get install postgresql",
            Self::PgBouncer => "apt-get install pgbouncer postgresql",
            Self::Mongo | Self::MongoAuth | Self::MongoStandalone | Self::MongoThree => {
                "put mongod on PATH, or name it in ACTORNOT_MONGOD"
            }
            Self::Redis | Self::RedisCluster | Self::RedisClusterReplicas => "apt-get install redis-server",
        }
    }

    /// How many processes it is made of.
    pub(super) fn members(self) -> usize {
        match self {
            Self::MongoThree | Self::RedisCluster => 3,
            Self::RedisClusterReplicas => 6,
            _ => 1,
        }
    }

    /// What it is started with, where nobody asks for more.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        if self == Self::MongoAuth { &[("auth", "")] } else { &[] }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}
