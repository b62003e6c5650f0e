"""The tables of `tables.py` for Django, which reads them and makes none. Imported by
`django_oracle.py` once the settings are made."""

from django.db import models
from pdp_client.django_orm import Many, NullAsValue, One, register


class Table(models.Model):
    class Meta:
        abstract = True
        app_label = "filters"
        managed = False


class Catalog(Table):
    id = models.TextField(primary_key=True)
    organization_id = models.TextField(null=True)

    class Meta(Table.Meta):
        db_table = "catalogs"


class Course(Table):
    id = models.TextField(primary_key=True)
    organization_id = models.TextField(null=True)
    catalog = models.ForeignKey(Catalog, null=True, on_delete=models.DO_NOTHING)

    class Meta(Table.Meta):
        db_table = "courses"


class Unit(Table):
    id = models.TextField(primary_key=True)
    name = models.TextField(null=True)
    level = models.FloatField(null=True)

    class Meta(Table.Meta):
        db_table = "units"


class Lesson(Table):
    id = models.TextField(primary_key=True)
    organization_id = models.TextField(null=True)
    course = models.ForeignKey(Course, null=True, on_delete=models.DO_NOTHING)
    owner = models.TextField(null=True)
    editor = models.TextField(null=True)
    title = models.TextField(null=True)
    level = models.FloatField(null=True)
    seats = models.IntegerField(null=True)
    open = models.BooleanField(null=True)
    unit = models.ForeignKey(Unit, null=True, on_delete=models.DO_NOTHING)

    class Meta(Table.Meta):
        db_table = "lessons"


class Tag(Table):
    lesson = models.ForeignKey(Lesson, related_name="tags", on_delete=models.DO_NOTHING)
    position = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta(Table.Meta):
        db_table = "tags"


class UnitTag(Table):
    unit = models.ForeignKey(Unit, related_name="tags", on_delete=models.DO_NOTHING)
    position = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta(Table.Meta):
        db_table = "unit_tags"


class Member(Table):
    lesson = models.ForeignKey(Lesson, related_name="members", on_delete=models.DO_NOTHING)
    position = models.IntegerField(primary_key=True)
    user = models.TextField(null=True)
    role = models.TextField(null=True)
    rank = models.IntegerField(null=True)

    class Meta(Table.Meta):
        db_table = "members"


register(Catalog, "catalog", id="id", organization="organization_id", stored=True)
register(Course, "course", id="id", organization="organization_id", parent="catalog", stored=True)
register(
    Lesson,
    "lesson",
    id="id",
    organization="organization_id",
    parent="course",
    attributes={
        "owner": "owner",
        "editor": "editor",
        "title": NullAsValue("title"),
        "level": "level",
        "seats": "seats",
        "open": "open",
        "unit": One("unit", {"name": "name", "level": "level", "tags": Many("tags", "name")}),
        "tags": Many("tags", "name"),
        "members": Many("members", {"user": "user", "role": "role", "rank": "rank"}),
    },
)
