import { PrismaPg } from "@prisma/adapter-pg";
import type { Plan } from "pdp-client";
import { describe, text, where } from "pdp-client/prisma";
import type { Course } from "./course";
import { PrismaClient } from "./generated/client";

const TITLE_CHARACTERS_MAX = 80;
const PAGE_ROWS = 50;

// Global because Next.js may load a module once for pages and once for handlers.
const place = globalThis as { prisma?: PrismaClient };
place.prisma ??= new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) });
const prisma = place.prisma;

// The PDP stores the courses too, with the same organization and owner (pdp.yaml).
const courses = describe("course", {
  id: text("id"),
  organization: text("organizationId"),
  attributes: { owner: text("ownerId") },
  stored: true,
});

/** The courses that a plan takes, by title. */
export function coursesOf(plan: Plan): Promise<Course[]> {
  return prisma.course.findMany({ where: where(plan, courses), orderBy: { title: "asc" }, take: PAGE_ROWS });
}

export function courseOf(id: string): Promise<Course | null> {
  return prisma.course.findUnique({ where: { id } });
}

/** The course with its new title; null if there is no such course, or the title is not one. */
export async function rename(id: string, title: unknown, changedBy: string): Promise<Course | null> {
  if (typeof title !== "string" || title.trim() === "" || title.length > TITLE_CHARACTERS_MAX) return null;
  const [renamed] = await prisma.course.updateManyAndReturn({
    where: { id },
    data: { title: title.trim(), changedBy },
  });
  return renamed ?? null;
}
