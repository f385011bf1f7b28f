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
INSERT INTO "attempts" VALUES(1,1,1,'2026-12-01 12:41:59.577358','2026-12-01 12:42:03.859122','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(2,2,1,'2026-12-01 12:42:03.864746','2026-12-01 12:42:04.000442','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(3,3,1,'2026-12-01 12:42:04.003172','2026-12-01 12:42:04.242381','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(4,4,1,'2026-12-01 12:42:04.245972','2026-12-01 12:42:04.496780','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(5,5,1,'2026-12-01 12:42:04.502956','2026-12-01 12:42:04.740863','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(6,6,1,'2026-12-01 12:42:04.746676','2026-12-01 12:42:04.881935','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(7,7,1,'2026-12-01 12:42:04.883806','2026-12-01 12:42:05.119936','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(8,8,1,'2026-12-01 12:42:05.121806','2026-12-01 12:42:05.371921','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(9,9,1,'2026-12-01 12:42:10.295174','2026-12-01 12:42:13.760503','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(10,10,1,'2026-12-01 12:42:13.766750','2026-12-01 12:42:14.273254','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(11,11,1,'2026-12-01 12:42:14.279128','2026-12-01 12:42:14.872265','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(12,12,1,'2026-12-01 12:42:14.876934','2026-12-01 12:42:15.428215','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(13,13,1,'2026-12-01 12:42:15.434022','2026-12-01 12:42:15.932688','COMPLETE',NULL);
INSERT INTO "attempts" VALUES(14,14,1,'2026-12-01 12:42:15.938615','2026-12-01 12:42:16.446608','COMPLETE',NULL);
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
INSERT INTO "evaluations" VALUES(1,'16d26785d43d45de37f3f6042219d39d723906a2b06c6fdb54c6e771d19606de',1,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',0,'validation',0.512,6.93072391510009766513e-01,4000,3.22406799999953364022e-01,'cpu',2,NULL,'2026-12-01 12:42:03.860770','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.6984673091343471, "validation": {"top1": 0.512, "loss": 0.6930723915100098, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(2,'e0a4879e6216911fd9d49ea93d242c259a4bf640eab6e473dbd1007468491bd0',2,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',0,'validation',0.49225,6.93377275943756088416e-01,4000,1.26342147999935150437e-01,'cpu',2,'fa9ea010804764df94bc0688974f9f31d88b5943a8993f2c09eaeaa4c36298b6','2026-12-01 12:42:04.000660','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.7035696302141462, "validation": {"top1": 0.49225, "loss": 0.6933772759437561, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(3,'8cead0427efdcb62999f163eb0bd9d860a970bcfc79261c8e543b815bf320d21',3,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',0,'validation',0.50825,6.93146529197692817803e-01,4000,2.26142654000000220548e-01,'cpu',2,NULL,'2026-12-01 12:42:04.242576','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.7067150115966797, "validation": {"top1": 0.50825, "loss": 0.6931465291976928, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(4,'d92827b22a63b57f9fbe1de05503f22d4d2db32750e94355433d2df6e27b2cef',4,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',0,'validation',0.51975,6.93609090328216604248e-01,4000,2.41474335999896538851e-01,'cpu',2,NULL,'2026-12-01 12:42:04.496986','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.7060086931501116, "validation": {"top1": 0.51975, "loss": 0.6936090903282166, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(5,'ebcdd1e1e25fedd65f7f04db29e9b7a7b0eb79b250e11fee9c849e34d6a6c442',5,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',0,'validation',0.51575,6.93171843528747610996e-01,4000,2.26041971999961788242e-01,'cpu',2,'6ed38e09406d781c4c7fd19ba6513f3fbb8ad4c92c2266f11a03a6cb38cf8e67','2026-12-01 12:42:04.741072','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.6979279109409877, "validation": {"top1": 0.51575, "loss": 0.6931718435287476, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(6,'08301ffc5b541325c4705f323f10e3d04b4e041265334338ff6cf632e1c9f287',2,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',1,'validation',0.52875,6.93510293483734163721e-01,4000,1.27537088000053699943e-01,'cpu',2,'388e3a3a5c524a08d5bf7f26a4a5f6d5b84bfa58d5ec0d746bbdd1cbe06f1318','2026-12-01 12:42:04.882151','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.7008673531668527, "validation": {"top1": 0.52875, "loss": 0.6935102934837342, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(7,'ad31731d1b37315a8bef1d223f7a96d4a9fdece46bd0ca56dd08fcc8857dd2fd',5,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',1,'validation',0.5375,6.91784225463867197269e-01,4000,2.26454128999989734438e-01,'cpu',2,'429cf78c93e1d68d7d25bd894d8a1733a0c535465ef07269573448fa8e9da8d2','2026-12-01 12:42:05.120154','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.6947859627859932, "validation": {"top1": 0.5375, "loss": 0.6917842254638672, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(8,'15dce455fb78cae757c656a938d13ac9ba23b47a5c4cc81102227decae526a66',4,'a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d','d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7','{"data_fraction":1.0,"epochs":1,"image_size":16,"weights":"trained"}',1,'validation',0.53225,6.93752418041229224066e-01,4000,2.4056908900001872098e-01,'cpu',2,NULL,'2026-12-01 12:42:05.372116','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 0.6979836055210659, "validation": {"top1": 0.53225, "loss": 0.6937524180412292, "num_images": 4000}}]');
INSERT INTO "evaluations" VALUES(9,'0dcb4bc2a22b32f0e3f716dc9c25e189e57fd17ad01bc111b06dff43830fac1b',6,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',0,'validation',0.5,1.08819426430596255528e+00,18,0.582567941000093,'cpu',2,NULL,'2026-12-01 12:42:13.761909','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.139387607574463, "validation": null}, {"epoch": 2, "train_loss": 1.1006076676504952, "validation": null}, {"epoch": 3, "train_loss": 1.1188853127615792, "validation": null}, {"epoch": 4, "train_loss": 1.1068991252354212, "validation": null}, {"epoch": 5, "train_loss": 1.1004067148481096, "validation": null}, {"epoch": 6, "train_loss": 1.102637835911342, "validation": null}, {"epoch": 7, "train_loss": 1.1003336906433105, "validation": null}, {"epoch": 8, "train_loss": 1.1000187056405204, "validation": null}, {"epoch": 9, "train_loss": 1.0943636213030135, "validation": null}, {"epoch": 10, "train_loss": 1.0893418448311942, "validation": null}, {"epoch": 11, "train_loss": 1.0864648818969727, "validation": null}, {"epoch": 12, "train_loss": 1.080183642251151, "validation": {"top1": 0.5, "loss": 1.0881942643059626, "num_images": 18}}]');
INSERT INTO "evaluations" VALUES(10,'b0ebbe668ec058a593f1f219e7442773448257300077704d96f3bf9f790c669c',7,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',0,'validation',5.55555555555555580227e-01,9.61792257097032310397e-01,18,4.97573184000202672905e-01,'cpu',2,'4990bdd95063827980acd6f5e4dff0d492685a54231522fd249371acd3317243','2026-12-01 12:42:14.273449','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.1366323743547713, "validation": null}, {"epoch": 2, "train_loss": 1.100766726902553, "validation": null}, {"epoch": 3, "train_loss": 1.1182543209620885, "validation": null}, {"epoch": 4, "train_loss": 1.1057333946228027, "validation": null}, {"epoch": 5, "train_loss": 1.0996092387608118, "validation": null}, {"epoch": 6, "train_loss": 1.0946197509765625, "validation": null}, {"epoch": 7, "train_loss": 1.0624350139072962, "validation": null}, {"epoch": 8, "train_loss": 1.0451618603297643, "validation": null}, {"epoch": 9, "train_loss": 1.008284432547433, "validation": null}, {"epoch": 10, "train_loss": 0.9602931567600795, "validation": null}, {"epoch": 11, "train_loss": 0.9113955497741699, "validation": null}, {"epoch": 12, "train_loss": 0.9279567173549107, "validation": {"top1": 0.5555555555555556, "loss": 0.9617922570970323, "num_images": 18}}]');
INSERT INTO "evaluations" VALUES(11,'835fa80d030d8095b7d6e3b2309a698ecd4629b51af29c1b449a6e153edc18e5',8,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',0,'validation',0.5,1.04741186565823030107e+00,18,5.82792297000082726299e-01,'cpu',2,NULL,'2026-12-01 12:42:14.872463','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.132699625832694, "validation": null}, {"epoch": 2, "train_loss": 1.10124295098441, "validation": null}, {"epoch": 3, "train_loss": 1.1178222383771623, "validation": null}, {"epoch": 4, "train_loss": 1.105752604348319, "validation": null}, {"epoch": 5, "train_loss": 1.0992939812796456, "validation": null}, {"epoch": 6, "train_loss": 1.0906434740339006, "validation": null}, {"epoch": 7, "train_loss": 1.0381336893354143, "validation": null}, {"epoch": 8, "train_loss": 1.0804474694388253, "validation": null}, {"epoch": 9, "train_loss": 1.0930040223257882, "validation": null}, {"epoch": 10, "train_loss": 1.0285448346819197, "validation": null}, {"epoch": 11, "train_loss": 1.003194740840367, "validation": null}, {"epoch": 12, "train_loss": 1.0060879162379675, "validation": {"top1": 0.5, "loss": 1.0474118656582303, "num_images": 18}}]');
INSERT INTO "evaluations" VALUES(12,'0efa46f353e0df2eb19d3998ce7a4aa65ca3cfccc8833b2cdb23ef59a4be81c4',9,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',0,'validation',4.44444444444444419772e-01,1.09429934289720320883e+00,18,5.41856297999970593082e-01,'cpu',2,NULL,'2026-12-01 12:42:15.428406','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.1374489239283971, "validation": null}, {"epoch": 2, "train_loss": 1.1005956786019462, "validation": null}, {"epoch": 3, "train_loss": 1.1190123558044434, "validation": null}, {"epoch": 4, "train_loss": 1.1072243281773158, "validation": null}, {"epoch": 5, "train_loss": 1.1005892072405135, "validation": null}, {"epoch": 6, "train_loss": 1.1030697141374861, "validation": null}, {"epoch": 7, "train_loss": 1.1007306235177177, "validation": null}, {"epoch": 8, "train_loss": 1.099705491747175, "validation": null}, {"epoch": 9, "train_loss": 1.0957409313746862, "validation": null}, {"epoch": 10, "train_loss": 1.0943217277526855, "validation": null}, {"epoch": 11, "train_loss": 1.0896053995404924, "validation": null}, {"epoch": 12, "train_loss": 1.0814401762826102, "validation": {"top1": 0.4444444444444444, "loss": 1.0942993428972032, "num_images": 18}}]');
INSERT INTO "evaluations" VALUES(13,'e9695392b36fe2c8f2b41c2748dc854fdcbfe167bda10fc8a9536bbc6d8ff3ca',10,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',0,'validation',3.88888888888888895056e-01,1.09838687049018,18,4.88538127999845528393e-01,'cpu',2,NULL,'2026-12-01 12:42:15.932874','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.1375707217625208, "validation": null}, {"epoch": 2, "train_loss": 1.10098021371024, "validation": null}, {"epoch": 3, "train_loss": 1.1177029609680176, "validation": null}, {"epoch": 4, "train_loss": 1.106520448412214, "validation": null}, {"epoch": 5, "train_loss": 1.1005244255065918, "validation": null}, {"epoch": 6, "train_loss": 1.1025584084647042, "validation": null}, {"epoch": 7, "train_loss": 1.1008360726492745, "validation": null}, {"epoch": 8, "train_loss": 1.1012682233537947, "validation": null}, {"epoch": 9, "train_loss": 1.0992919376918249, "validation": null}, {"epoch": 10, "train_loss": 1.0984071322849818, "validation": null}, {"epoch": 11, "train_loss": 1.0980937140328544, "validation": null}, {"epoch": 12, "train_loss": 1.09765590940203, "validation": {"top1": 0.3888888888888889, "loss": 1.09838687049018, "num_images": 18}}]');
INSERT INTO "evaluations" VALUES(14,'164843078e6dd3f7ac9e69113e8ee8b1f76a5e883983fe115a1c5f908330b952',7,'99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83','2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6','{"data_fraction":1.0,"epochs":12,"image_size":12,"weights":"trained"}',1,'validation',0.5,1.00461824735005689213e+00,18,4.97980428000232677732e-01,'cpu',2,'3e7bdd060b02891b50b02ec875e9f191de70bdddcd419d9b051e76dc838cc828','2026-12-01 12:42:16.446798','{"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}','{}','[{"epoch": 1, "train_loss": 1.1038577897208077, "validation": null}, {"epoch": 2, "train_loss": 1.146461078098842, "validation": null}, {"epoch": 3, "train_loss": 1.1161189079284668, "validation": null}, {"epoch": 4, "train_loss": 1.0960266249520438, "validation": null}, {"epoch": 5, "train_loss": 1.046356541769845, "validation": null}, {"epoch": 6, "train_loss": 0.9842700277056012, "validation": null}, {"epoch": 7, "train_loss": 0.9082968575613839, "validation": null}, {"epoch": 8, "train_loss": 0.8983498982020787, "validation": null}, {"epoch": 9, "train_loss": 0.8396004268101284, "validation": null}, {"epoch": 10, "train_loss": 0.9608158384050641, "validation": null}, {"epoch": 11, "train_loss": 0.8079244749886649, "validation": null}, {"epoch": 12, "train_loss": 0.873490537915911, "validation": {"top1": 0.5, "loss": 1.004618247350057, "num_images": 18}}]');
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
INSERT INTO "front_snapshots" VALUES(1,1,1,2.18181818181818710719e-03,'[0]');
INSERT INTO "front_snapshots" VALUES(2,1,2,2.18181818181818710719e-03,'[0, 1]');
INSERT INTO "front_snapshots" VALUES(3,1,3,5.37617353781561294057e-03,'[0, 1, 2]');
INSERT INTO "front_snapshots" VALUES(4,1,4,1.00577584698816491909e-02,'[1, 2, 3]');
INSERT INTO "front_snapshots" VALUES(5,1,5,1.66319027348533869659e-02,'[1, 3, 4]');
INSERT INTO "front_snapshots" VALUES(6,2,1,2.27272727272727730063e-02,'[0]');
INSERT INTO "front_snapshots" VALUES(7,2,2,0.163284802629065,'[1]');
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
CREATE TABLE searcher_attributes (
	study_id INTEGER NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_searcher_attributes PRIMARY KEY (study_id, "key"), 
	CONSTRAINT fk_searcher_attributes_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO "searcher_attributes" VALUES(1,'sharedattn:first_num_trials',5);
INSERT INTO "searcher_attributes" VALUES(1,'NSGAIISampler:parent:1','[1, 2, 3, 0]');
INSERT INTO "searcher_attributes" VALUES(2,'sharedattn:first_num_trials',5);
INSERT INTO "searcher_attributes" VALUES(2,'NSGAIISampler:parent:1','[1, 2, 3, 0]');
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
INSERT INTO "specs" VALUES(1,'ddba168039a01de882a2be2d7721e95601f15a9d76ba92740b42a8ac9353bbd1',4646,18708,128,'V2','vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16: V2','{"format": 2, "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, null], ["V", null, null, null]]]}');
INSERT INTO "specs" VALUES(2,'456a88b0006ac58d0e585bee8db748ead11f6a0fb60e78ab47bcdf726522f219',2114,8004,0,'N1','vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16: N1','{"format": 2, "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["N", null, null, null]]]}');
INSERT INTO "specs" VALUES(3,'ececd2543695f5941b821d9e0dbcd50ab93921f9689ae645b7cf05ce0e3776fe',3794,14724,560,'N1E1/s5/cb','vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16: N1E1/s5/cb','{"format": 2, "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["N", null, null, "cb"], ["E", 5, null, "cb"]]]}');
INSERT INTO "specs" VALUES(4,'8d34a4eda2cb5637f8e5231601cedbf224a9a41a81e24963b7ce809df6c4e5ac',3998,15780,128,'V1N1/cb','vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16: V1N1/cb','{"format": 2, "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, "cb"], ["N", null, null, "cb"]]]}');
INSERT INTO "specs" VALUES(5,'1a06a6bba8768a4c6f4039e7f0f71784175ce01681a3e9605cbdd2e73a17ded7',2762,10932,128,'V1','vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16: V1','{"format": 2, "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, null]]]}');
INSERT INTO "specs" VALUES(6,'e3f33f1bc4f38cb2176b4828ea77a52b42fb97d68d2415f09a78dcbb20017534',4551,47580,800,'V2','vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: V2','{"format": 2, "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, null], ["V", null, null, null]]]}');
INSERT INTO "specs" VALUES(7,'b82dfb6465622515f9e13eddcc13820b0f660e4e42de70f6e62ec099f3cba98c',2667,26700,800,'V1/cb','vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: V1/cb','{"format": 2, "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, "cb"]]]}');
INSERT INTO "specs" VALUES(8,'42d25178dcfc140933756bc064d299714204e92d388cb64b9c6bc587b0e3418e',4551,47580,800,'V2/cb','vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: V2/cb','{"format": 2, "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, "cb"], ["V", null, null, "cb"]]]}');
INSERT INTO "specs" VALUES(9,'be39a620d125b5132e5616a6762b08ef61ec74eb90cf6a91f45c1e039758f283',3903,38820,800,'N1V1/cb','vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: N1V1/cb','{"format": 2, "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["N", null, null, "cb"], ["V", null, null, "cb"]]]}');
INSERT INTO "specs" VALUES(10,'39d4bafc4c74f326dfa8e3e33a233a7c4caee1536872378fd6ae5312a176e455',2667,26700,800,'V1','vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: V1','{"format": 2, "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "placement": [[["V", null, null, null]]]}');
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
INSERT INTO "studies" VALUES(1,'tiny-digit-pairs-97aef3','97aef34970a82901e615b4dcd12509c5319dc33b1eeb697907f433acdb5e442c','nsga2',0,5,2,1,'2026-12-01 12:41:59.547897','2026-12-01 12:42:05.378672','["top1", "macs"]','{"top1": 0.5, "macs": 20578.800000000003, "params": 5110.6}','{"space": {"name": "tiny", "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "order": "any", "stages": [{"counts": {"E": [0, 1], "V": [0, 1, 2], "L": [0, 1], "N": [0, 1]}, "depth": [1, 2], "slots": [5], "external_form": ["single"], "less_form": ["default"], "dia": [0], "cb": [0, "all"]}], "constraints": []}, "data": "d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7", "recipe": "a307afe097a0ec8e52e10f4960a7ec6809439c76af98fa1fc5e5b4aba97e588d", "evaluator": "scratch", "objectives": ["top1", "macs"], "max_macs": null, "max_params": null, "searcher": "nsga2", "seed": 0, "early_stopping": null, "deterministic": false, "workers": null}','{"name": "tiny", "backbone": {"name": "vit", "keywords": {"class_token": false, "depth": 2, "embed_dim": 12, "global_pool": "avg", "num_heads": 2, "patch_size": 8}, "image_size": 16, "in_chans": 1, "num_classes": 2, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "order": "any", "stages": [{"counts": {"E": [0, 1], "V": [0, 1, 2], "L": [0, 1], "N": [0, 1]}, "depth": [1, 2], "slots": [5], "external_form": ["single"], "less_form": ["default"], "dia": [0], "cb": [0, "all"]}], "constraints": []}','{"name": "digit-pairs", "config": {"name": "digit-pairs", "root": null, "image_size": 16, "in_chans": 1, "val_fraction": 0.1, "split_seed": 0}, "fingerprint": "d53b16b7cc03da79c85e6706734ff6a0f7fe9ce09b02382b544597451e5a05b7", "identity": {"name": "digit-pairs", "version": 1, "scikit_learn_digits": 561718, "split_seed": 20260, "eval_seeds": {"validation": 20261, "test": 20262}, "eval_pairs": 4000, "pairs_per_epoch": 4480, "transform": "standardised"}, "images": {"train": 4480, "validation": 4000, "test": 4000}}','{"epochs": 1, "batch_size": 128, "init": "torch", "optimizer": "muon", "optimizer_options": {"nesterov": true}, "lr": 0.02, "weight_decay": 0.05, "schedule": "cosine", "warmup_epochs": 0.2, "min_lr": 1e-05, "clip_grad_norm": null, "drop_path_rate": 0.0, "label_smoothing": 0.0, "diagonality_weight": 0.0, "ema_decay": null, "amp": "none", "hflip": 0.0, "crop_scale_min": 1.0, "color_jitter": 0.0, "auto_augment": null, "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "rungs": [], "restarts": false, "loader_workers": 0, "grad_checkpointing": false}','{"command": "sharedattn search digits.yaml --trials 5 --epochs 1 --confirm-seeds 2 --workers 1 --out out --json", "commit": "c0d369a0b5d1", "versions": {"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "machine": {"system": "Linux x86_64", "processor": "Intel(R) Xeon(R) Processor", "cores": 2}}',NULL,22,NULL);
INSERT INTO "studies" VALUES(2,'shapes-shapes-33251c','33251c55a0428e4febbd311e86efd11dfd1b6d4c707a63431ccdbb6b3a8caffb','nsga2',0,5,2,1,'2026-12-01 12:42:10.263677','2026-12-01 12:42:16.450720','["top1", "macs"]','{"top1": 0.3333333333333333, "macs": 52338.00000000001, "params": 5006.1}','{"space": {"name": "shapes", "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "order": "any", "stages": [{"counts": {"E": [0], "V": [0, 1, 2], "L": [0, 1], "N": [0, 1]}, "depth": [1, 2], "slots": [64], "external_form": ["single"], "less_form": ["default"], "dia": [0], "cb": [0, "all"]}], "constraints": []}, "data": "2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6", "recipe": "99d30f8d1c3fa6e82468438a16c32798da244e8f35290478ed170b78d3df3d83", "evaluator": "scratch", "objectives": ["top1", "macs"], "max_macs": null, "max_params": null, "searcher": "nsga2", "seed": 0, "early_stopping": null, "deterministic": false, "workers": null}','{"name": "shapes", "backbone": {"name": "vit", "keywords": {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 4}, "image_size": 12, "in_chans": 3, "num_classes": 3, "options": {"external_expansion": 4, "broadcasting_form": "plain", "dia_reduction": 4, "class_token_in_mean": true, "handover": "equal_shift", "attention_residual": false}}, "order": "any", "stages": [{"counts": {"E": [0], "V": [0, 1, 2], "L": [0, 1], "N": [0, 1]}, "depth": [1, 2], "slots": [64], "external_form": ["single"], "less_form": ["default"], "dia": [0], "cb": [0, "all"]}], "constraints": []}','{"name": "shapes", "config": {"name": "shapes", "root": null, "image_size": 12, "in_chans": 3, "val_fraction": 0.3, "split_seed": 0}, "fingerprint": "2de647e343fcbd4d17c34e301f5f01b6d6728bf0276b300e2dd3ac8c458a7ac6", "identity": {"version": 1, "files": {"train": "f4982f421921c5bdad66c4e5125ede9a8a7b97fc9bb5ab3fe68139a9dcd6a14c", "test": "6d5a5adade41c276e210cc48e97b290ec266e7c7cde54a07faa13f5ccdd4aefe", "validation": "f4982f421921c5bdad66c4e5125ede9a8a7b97fc9bb5ab3fe68139a9dcd6a14c"}, "images": {"train": 42, "test": 24, "validation": 18}, "split_seed": 0, "val_fraction": 0.3, "transform": {"image_size": 12, "in_chans": 3, "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}, "images": {"train": 42, "validation": 18, "test": 24}}','{"epochs": 12, "batch_size": 6, "init": "timm", "optimizer": "adamw", "optimizer_options": {}, "lr": 0.01, "weight_decay": 0.05, "schedule": "cosine", "warmup_epochs": 0.0, "min_lr": 1e-05, "clip_grad_norm": null, "drop_path_rate": 0.0, "label_smoothing": 0.0, "diagonality_weight": 0.0, "ema_decay": null, "amp": "none", "hflip": 0.5, "crop_scale_min": 0.4, "color_jitter": 0.0, "auto_augment": null, "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "rungs": [], "restarts": false, "loader_workers": 0, "grad_checkpointing": false}','{"command": "sharedattn search shapes.yaml --data shapes --recipe recipe.yaml --val-fraction 0.3 --trials 5 --confirm-seeds 2 --workers 1 --out out --json", "commit": "c0d369a0b5d1", "versions": {"python": "3.11.7", "sharedattn": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.6", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "machine": {"system": "Linux x86_64", "processor": "Intel(R) Xeon(R) Processor", "cores": 2}}',NULL,18,NULL);
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
INSERT INTO "trials" VALUES(1,1,'search',0,0,'COMPLETE',1,1,0,'2026-12-01 12:41:59.577009','2026-12-01 12:42:03.861594',NULL,'{}','{"stage1.kind1": "V", "stage1.kind2": "V", "stage1.cb": 0}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(2,1,'search',1,0,'COMPLETE',2,2,0,'2026-12-01 12:42:03.864634','2026-12-01 12:42:04.000874',NULL,'{}','{"stage1.kind1": "N", "stage1.kind2": "-", "stage1.cb": 0}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(3,1,'search',2,0,'COMPLETE',3,3,0,'2026-12-01 12:42:04.003070','2026-12-01 12:42:04.242803',NULL,'{}','{"stage1.kind1": "N", "stage1.kind2": "E", "stage1.cb": "all"}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(4,1,'search',3,0,'COMPLETE',4,4,0,'2026-12-01 12:42:04.245812','2026-12-01 12:42:04.497215',NULL,'{}','{"stage1.kind1": "V", "stage1.kind2": "N", "stage1.cb": "all"}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(5,1,'search',4,0,'COMPLETE',5,5,0,'2026-12-01 12:42:04.502847','2026-12-01 12:42:04.741293',NULL,'{"stage1.kind1": "V", "stage1.kind2": "-", "stage1.cb": 0}','{"stage1.kind1": "V", "stage1.kind2": "-", "stage1.cb": 0}','{"NSGAIISampler:generation": 1}','[]');
INSERT INTO "trials" VALUES(6,1,'confirm',0,1,'COMPLETE',2,6,0,'2026-12-01 12:42:04.746560','2026-12-01 12:42:04.882414',NULL,'{}','{}','{}','[]');
INSERT INTO "trials" VALUES(7,1,'confirm',1,1,'COMPLETE',5,7,0,'2026-12-01 12:42:04.883705','2026-12-01 12:42:05.120405',NULL,'{}','{}','{}','[]');
INSERT INTO "trials" VALUES(8,1,'confirm',2,1,'COMPLETE',4,8,0,'2026-12-01 12:42:05.121707','2026-12-01 12:42:05.372363',NULL,'{}','{}','{}','[]');
INSERT INTO "trials" VALUES(9,2,'search',0,0,'COMPLETE',6,9,0,'2026-12-01 12:42:10.294723','2026-12-01 12:42:13.762726',NULL,'{}','{"stage1.kind1": "V", "stage1.kind2": "V", "stage1.cb": 0}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(10,2,'search',1,0,'COMPLETE',7,10,0,'2026-12-01 12:42:13.766630','2026-12-01 12:42:14.273694',NULL,'{}','{"stage1.kind1": "V", "stage1.kind2": "-", "stage1.cb": "all"}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(11,2,'search',2,0,'COMPLETE',8,11,0,'2026-12-01 12:42:14.279015','2026-12-01 12:42:14.872704',NULL,'{}','{"stage1.kind1": "V", "stage1.kind2": "V", "stage1.cb": "all"}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(12,2,'search',3,0,'COMPLETE',9,12,0,'2026-12-01 12:42:14.876828','2026-12-01 12:42:15.428640',NULL,'{}','{"stage1.kind1": "N", "stage1.kind2": "V", "stage1.cb": "all"}','{"NSGAIISampler:generation": 0}','[]');
INSERT INTO "trials" VALUES(13,2,'search',4,0,'COMPLETE',10,13,0,'2026-12-01 12:42:15.433858','2026-12-01 12:42:15.933104',NULL,'{"stage1.kind1": "V", "stage1.kind2": "-", "stage1.cb": 0}','{"stage1.kind1": "V", "stage1.kind2": "-", "stage1.cb": 0}','{"NSGAIISampler:generation": 1}','[]');
INSERT INTO "trials" VALUES(14,2,'confirm',0,1,'COMPLETE',7,14,0,'2026-12-01 12:42:15.938500','2026-12-01 12:42:16.447057',NULL,'{}','{}','{}','[]');
CREATE INDEX ix_trials_study_id_role_state ON trials (study_id, role, state);
CREATE INDEX ix_trials_evaluation_id ON trials (evaluation_id);
COMMIT;
