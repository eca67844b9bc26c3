insert into pet (id, name, owner) values (1, 'Leo', 'George');
insert into pet (id, name, owner) values (2, 'Basil', 'Betty');
insert into pet (id, name, owner) values (3, 'Rosy', 'Eduardo');
