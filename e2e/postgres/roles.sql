-- Login roles that pg_hba.conf binds to one way of authentication each (see servers.sh).
CREATE ROLE hba_tls_only LOGIN PASSWORD :'password';
CREATE ROLE hba_plain_only LOGIN PASSWORD :'password';
CREATE ROLE hba_cleartext LOGIN PASSWORD :'password';
CREATE ROLE hba_rejected LOGIN PASSWORD :'password';
CREATE ROLE hba_trust LOGIN;
SET password_encryption = 'md5';
CREATE ROLE hba_md5 LOGIN PASSWORD :'password';
