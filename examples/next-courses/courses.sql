CREATE TABLE courses (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    owner_id text NOT NULL,
    title text NOT NULL,
    teacher text NOT NULL,
    summary text NOT NULL,
    changed_by text
);
CREATE INDEX ON courses (organization_id, title);

INSERT INTO courses (id, organization_id, owner_id, title, teacher, summary) VALUES
    ('algebra', 'org_school', 'user_ivan', 'Algebra', 'Ivan Instructor', 'Groups, rings, and why they matter.'),
    ('biology', 'org_school', 'user_ada', 'Biology', 'Ada Admin', 'From the cell to the forest.'),
    ('latin', 'org_school', 'user_ivan', 'Latin', 'Ivan Instructor', 'Read Caesar before the summer.'),
    ('history', 'org_other', 'user_olga', 'History', 'Olga Other', 'A course of another school.');
