package Pgq::Producer;

# A session that enqueues numbered messages, by INSERT, by enqueue() and with keys in turn, one in each transaction, until it is
# stopped. It counts failures by SQLSTATE and uses their numbers again.
#
#   my $producer = Pgq::Producer->new($pg, database => 'other');
#   my $sent     = $producer->stop;               the number of committed messages: 1, 2, … $sent
#   $producer->errors;                            { 42883 => 3 }

use strict;
use warnings;

my $number = 0;


# Options: database, and from (1): the first number.
sub new {
    my ($class, $pg, %option) = @_;
    my $self = bless { pg => $pg, database => $option{database}, from => $option{from} // 1, number => ++$number }, $class;

    $self->{sql} = { defined $option{database} ? (database => $option{database}) : () };
    $pg->safe_psql(qq{
        create schema if not exists producer;
        create table producer.stop_$number ();
        create table producer.error_$number (code text);
        create table producer.sent_$number (count integer);
    }, %{ $self->{sql} });

    $self->{session} = $pg->session(%{ $self->{sql} });
    $self->{session}->send(<<"END");
do \$\$
declare
    n integer := $self->{from};
begin
    while to_regclass('producer.stop_$number') is not null loop
        begin
            if n % 3 = 0 then
                perform ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array[n::text]);
            elsif n % 3 = 1 then
                if exists (select from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array[n::text], array['producer $number ' || n])) then
                    raise 'a new key is known';
                end if;
            else
                insert into ngx_pgq.queue (data) values (to_json(n));
            end if;
            n := n + 1;
        exception when others then
            insert into producer.error_$number values (sqlstate);
        end;
        commit;
        perform pg_sleep(0.001);
    end loop;
    insert into producer.sent_$number values (n - $self->{from});
end
\$\$
END

    return $self;
}


sub stop {
    my ($self) = @_;

    $self->{pg}->safe_psql("drop table producer.stop_$self->{number}", %{ $self->{sql} });
    my $answer = $self->{session}->result;
    $self->{session}->quit;
    die "producer: $answer\n" if $answer ne '';

    return $self->{pg}->safe_psql("select count from producer.sent_$self->{number}", %{ $self->{sql} });
}


sub errors {
    my ($self) = @_;

    return { map { split /\|/ } split /\n/,
        $self->{pg}->safe_psql("select code, count(*) from producer.error_$self->{number} group by code", %{ $self->{sql} }) };
}


1;
