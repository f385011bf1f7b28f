-- A database as schema 0005 was released; never changed afterwards.
BEGIN TRANSACTION;
CREATE TABLE attempts (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	outcome VARCHAR(16), 
	traceback TEXT, 
	CONSTRAINT pk_attempts PRIMARY KEY (id), 
	CONSTRAINT fk_attempts_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT uq_attempts_trial_id_number UNIQUE (trial_id, number)
);
INSERT INTO "attempts" VALUES(1,1,1,'2026-11-30 17:07:18.893761','2026-11-30 17:07:18.929477','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(2,2,1,'2026-11-30 17:07:18.893761','2026-11-30 17:07:18.929477','COMPLETE',NULL);
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	spec_id INTEGER NOT NULL, 
	recipe_key VARCHAR(64) NOT NULL, 
	data_fingerprint VARCHAR(64) NOT NULL, 
	fidelity_key VARCHAR(255) NOT NULL, 
	seed BIGINT NOT NULL, 
	split VARCHAR(32) NOT NULL, 
	top1 DOUBLE NOT NULL, 
	loss DOUBLE NOT NULL, 
	num_images INTEGER NOT NULL, 
	wall_time_s DOUBLE NOT NULL, 
	device VARCHAR(255) NOT NULL, 
	threads INTEGER NOT NULL, 
	weights_sha256 VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	versions JSON NOT NULL, 
	metrics JSON NOT NULL, 
	learning_curve JSON NOT NULL, 
	CONSTRAINT pk_evaluations PRIMARY KEY (id), 
	CONSTRAINT fk_evaluations_spec_id_specs FOREIGN KEY(spec_id) REFERENCES specs (id), 
	CONSTRAINT uq_evaluations_key UNIQUE ("key")
);
INSERT INTO "evaluations" VALUES(1,'84fc8efb8a46615dd4eaeae54149027112aba0d75ef40ca16df95b70d49369fe',1,'rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{"data_fraction":1.0,"epochs":7,"image_size":16,"weights":"trained"}',5,'validation',0.875,0.25,4000,3.5,'cpu',1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2026-11-30 17:07:18.955839','{"torch": "2.14.1"}','{}','[{"epoch": 1, "top1": 0.75}]');
CREATE TABLE front_snapshots (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	num_complete INTEGER NOT NULL, 
	hypervolume DOUBLE NOT NULL, 
	members JSON NOT NULL, 
	CONSTRAINT pk_front_snapshots PRIMARY KEY (id), 
	CONSTRAINT fk_front_snapshots_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_front_snapshots_study_id_num_complete UNIQUE (study_id, num_complete)
);
INSERT INTO "front_snapshots" VALUES(1,1,1,0.25,'[0]');
INSERT INTO "front_snapshots" VALUES(2,2,1,0.25,'[0]');
CREATE TABLE latencies (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	spec_id INTEGER NOT NULL, 
	latency_ms DOUBLE NOT NULL, 
	latency_source VARCHAR(16) NOT NULL, 
	repeats INTEGER NOT NULL, 
	device VARCHAR(255) NOT NULL, 
	batch_size INTEGER NOT NULL, 
	peak_bytes BIGINT, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_latencies PRIMARY KEY (id), 
	CONSTRAINT fk_latencies_spec_id_specs FOREIGN KEY(spec_id) REFERENCES specs (id), 
	CONSTRAINT fk_latencies_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_latencies_study_id_spec_id UNIQUE (study_id, spec_id)
);
INSERT INTO "latencies" VALUES(1,2,1,2.5,'network',31,'a processor, 2 threads',3,12345,'2026-12-01 15:30:00.000000');
CREATE TABLE rung_reports (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	top1 DOUBLE NOT NULL, 
	loss DOUBLE NOT NULL, 
	goes_on BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_rung_reports PRIMARY KEY (id), 
	CONSTRAINT fk_rung_reports_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT uq_rung_reports_trial_id_epoch UNIQUE (trial_id, epoch)
);
INSERT INTO "rung_reports" VALUES(1,1,1,0.75,0.5,1,'2026-11-30 17:07:18.928815');
INSERT INTO "rung_reports" VALUES(2,2,1,0.75,0.5,1,'2026-11-30 17:07:18.928815');
CREATE TABLE searcher_attributes (
	study_id INTEGER NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_searcher_attributes PRIMARY KEY (study_id, "key"), 
	CONSTRAINT fk_searcher_attributes_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id)
);
CREATE TABLE sharedattn_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT sharedattn_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "sharedattn_alembic_version" VALUES('0005');
CREATE TABLE specs (
	id INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	params BIGINT NOT NULL, 
	macs BIGINT NOT NULL, 
	attention_bytes BIGINT NOT NULL, 
	placement TEXT NOT NULL, 
	text TEXT NOT NULL, 
	document JSON NOT NULL, 
	CONSTRAINT pk_specs PRIMARY KEY (id), 
	CONSTRAINT uq_specs_key UNIQUE ("key")
);
INSERT INTO "specs" VALUES(1,'ab6a01f49f0ff00b9cd301baf98e43267e25eb44223546256efb51408a9cb623',101,1009,13,'V2L1','vit: V2L1','{"format": 2, "backbone": {"name": "vit", "keywords": {}, "image_size": null, "in_chans": 3, "num_classes": 1000, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, null], ["V", null, null, null], ["L", null, null, null]]]}');
CREATE TABLE studies (
	id INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	searcher VARCHAR(64) NOT NULL, 
	seed BIGINT NOT NULL, 
	num_trials INTEGER NOT NULL, 
	confirm_seeds INTEGER NOT NULL, 
	driver_epoch INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	objectives JSON NOT NULL, 
	reference_point JSON NOT NULL, 
	fingerprint_document JSON NOT NULL, 
	space JSON NOT NULL, 
	data JSON NOT NULL, 
	recipe JSON NOT NULL, 
	provenance JSON NOT NULL, weights_dir TEXT, driver_write BIGINT DEFAULT '0' NOT NULL, latency JSON, 
	CONSTRAINT pk_studies PRIMARY KEY (id), 
	CONSTRAINT uq_studies_name UNIQUE (name)
);
INSERT INTO "studies" VALUES(1,'digits','028d7d77898d159598b94214f648d918b6a3bbaf38343340b0177baf314c9ae8','nsga2',5,24,3,1,'2026-11-30 17:07:18.821701',NULL,'["top1", "macs"]','{"top1": 0.5, "macs": 1100.0}','{"space": "s", "budget": {"macs": 11}, "seed": 5}','{"name": "toy"}','{"name": "digit-pairs", "fingerprint": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}','{"epochs": 7}','{"command": "sharedattn search"}',NULL,3,NULL);
INSERT INTO "studies" VALUES(2,'timed','2fa598562b7464e057fbd483a54204ceeffbc4f844305de40801f13d6a3b9643','nsga2',5,24,3,1,'2026-11-30 17:07:18.821701',NULL,'["top1", "latency_ms"]','{"top1": 0.5, "macs": 1100.0}','{"space": "s", "budget": {"macs": 11}, "seed": 5}','{"name": "toy"}','{"name": "digit-pairs", "fingerprint": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}','{"epochs": 7}','{"command": "sharedattn search"}',NULL,4,'{"source": "network", "device": "a processor, 2 threads", "batch_size": 3, "max_ms": 4.5}');
CREATE TABLE trials (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	number INTEGER NOT NULL, 
	replicate INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	spec_id INTEGER NOT NULL, 
	evaluation_id INTEGER, 
	reused BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	error TEXT, 
	proposed JSON NOT NULL, 
	repaired JSON NOT NULL, 
	sampler_attributes JSON NOT NULL, 
	learning_curve JSON NOT NULL, 
	CONSTRAINT pk_trials PRIMARY KEY (id), 
	CONSTRAINT fk_trials_evaluation_id_evaluations FOREIGN KEY(evaluation_id) REFERENCES evaluations (id), 
	CONSTRAINT fk_trials_spec_id_specs FOREIGN KEY(spec_id) REFERENCES specs (id), 
	CONSTRAINT fk_trials_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_trials_study_id_role_number UNIQUE (study_id, role, number)
);
INSERT INTO "trials" VALUES(1,1,'search',0,0,'COMPLETE',1,1,0,'2026-11-30 17:07:18.893361','2026-11-30 17:07:18.957086',NULL,'{"a": 1}','{"a": 1}','{}','[]');
INSERT INTO "trials" VALUES(2,2,'search',0,0,'COMPLETE',1,1,0,'2026-11-30 17:07:18.893361','2026-11-30 17:07:18.957086',NULL,'{"a": 1}','{"a": 1}','{}','[]');
CREATE INDEX ix_trials_study_id_role_state ON trials (study_id, role, state);
CREATE INDEX ix_trials_evaluation_id ON trials (evaluation_id);
COMMIT;
