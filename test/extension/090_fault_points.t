# The library that is delivered has no fault points.

use Pgq;

my $library = Pgq::Host::build_dir() . '/pg' . Pgq::Host::pg_version() . '/usr/lib/postgresql/' . Pgq::Host::pg_version() . '/lib/ngx_pgq.so';
my $text    = Pgq::Host::slurp($library);

like($text, qr/ngx_pgq\.batch_size/, 'settings can be found in it');
unlike($text, qr/ngx_pgq\.fault|ngx_pgq_fault_|fault at/, 'and none for faults');

done_testing;
