import Link from "next/link";
import type { ReactNode } from "react";

export function RefusalPage({ title, children }: { title: string; children: ReactNode }) {
  return (
    <>
      <h1>{title}</h1>
      <p className="notice">{children}</p>
      <p>
        <Link href="/">All courses</Link>
      </p>
    </>
  );
}
