# The library of a normal build has no fault points.

use Pgq;

my $library = Pgq::Host::build_dir() . '/pg' . Pgq::Host::pg_version() . '/usr/lib/postgresql/' . Pgq::Host::pg_version() . '/lib/ngx_pgq.so';
my $text    = Pgq::Host::slurp($library);

like($text, qr/ngx_pgq\.batch_size/, 'the library contains the name of a setting');
unlike($text, qr/ngx_pgq\.fault|ngx_pgq_fault_|fault at/, 'the library contains no fault points');

done_testing;
