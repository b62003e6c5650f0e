import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";
import "./globals.css";

export const metadata: Metadata = {
  title: { default: "Courses", template: "%s - Courses" },
  description: "An example of the policy decision point",
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <header>
          <Link href="/" className="brand">
            The School
          </Link>
          <nav aria-label="Main">
            <Link href="/">Courses</Link>
          </nav>
        </header>
        <main>{children}</main>
      </body>
    </html>
  );
}
