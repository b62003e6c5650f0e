export default function Page() {
  return <p>HEALTHY</p>;
}
