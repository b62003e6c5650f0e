// In place of your database. It is global because Next.js may load a module once for pages and once for handlers.
import type { Course } from "./course";

const TITLE_CHARACTERS_MAX = 80;

const place = globalThis as { courses?: Map<string, Course> };
place.courses ??= new Map(
  [
    { id: "algebra", title: "Algebra", teacher: "Ivan Instructor", summary: "Groups, rings, and why they matter." },
    { id: "biology", title: "Biology", teacher: "Ada Admin", summary: "From the cell to the forest." },
    { id: "latin", title: "Latin", teacher: "Ivan Instructor", summary: "Read Caesar before the summer." },
  ].map((one) => [one.id, { ...one, changedBy: null }]),
);
const courses = place.courses;

export function allCourses(): Course[] {
  return [...courses.values()];
}

export function courseOf(id: string): Course | null {
  return courses.get(id) ?? null;
}

/** The course with its new title; null where there is no such course, or the title is none. */
export function rename(id: string, title: unknown, changedBy: string): Course | null {
  const found = courses.get(id);
  if (found === undefined || typeof title !== "string") return null;
  if (title.trim() === "" || title.length > TITLE_CHARACTERS_MAX) return null;
  const renamed = { ...found, title: title.trim(), changedBy };
  courses.set(id, renamed);
  return renamed;
}
