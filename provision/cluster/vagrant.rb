# Sets up the machines of the Vagrantfile. It can be called on any system that has Vagrant: what needs Debian runs on the
# machines, the rest is Ruby, which is part of Vagrant.
#
# .vagrant/ngx_pgq/ keeps parts/, module and extension built for Debian 13, and secrets/, the CA, keys and passwords
# (provision/cluster/secrets). If they do not exist, or the sources have changed, the machine that is set up makes them and
# sends them here; the CA's key stays here. A machine is given the scripts, the parts and its own secrets, makes its kit of
# them (provision/cluster/kit) and runs the kit's provision/host/setup.

require "digest"
require "fileutils"
require "json"
require "net/http"
require "openssl"
require "rubygems/package"

module NgxPgq
  TOP = File.expand_path("../..", __dir__)
  SCRIPTS = %w[provision patroni haproxy sql].freeze
  SOURCES = %w[provision ngx_pgq_module pg_extension].freeze
  BUILD = %w[provision/cluster/parts provision/build.mk provision/install-packages ngx_pgq_module pg_extension].freeze
  MADE = /\.s?o\z/
  SETTINGS = %w[NGX_PGQ_CLIENTS NGX_PGQ_MONITORS NGX_PGQ_RATE NGX_PGQ_UNLIMITED NGX_PGQ_ORIGINS NGX_PGQ_HTTP].freeze


  # The hosts of the cluster, and a check that it accepts messages.
  class Cluster
    attr_reader :hosts

    def initialize(network, hosts)
      @network = network
      @hosts = hosts
    end

    def address(host)
      "#{@network}.#{host[:last]}"
    end

    def peers
      hosts.map { |host| "#{host[:role]}:#{host[:name]}:#{address(host)}" }
    end

    # Returns the environment of provision/host/setup.
    def settings
      [*("NGX_PGQ_PATIENCE=#{patience}" if ENV.key?("NGX_PGQ_PATIENCE")), *ENV.slice(*SETTINGS).map { |name, value| "#{name}='#{value}'" }]
    end

    def patience
      Integer(ENV.fetch("NGX_PGQ_PATIENCE", "1"))
    end

    # Posts a message to each web host, reads all from each, and shows the URLs; nothing unless all machines are running.
    def smoke(env, machine)
      return unless hosts.all? { |host| env.machine(host[:name].to_sym, machine.provider_name).state.id == :running }

      urls = hosts.select { |host| host[:role] == "web" }.map { |host| "https://#{address(host)}" }
      @ca = machine.env.local_data_path.join("ngx_pgq/secrets/ca.crt").to_s
      machine.ui.info("waiting until the cluster accepts messages")

      texts = urls.map do |url|
        text = JSON.generate("by" => url, "stamp" => rand(1 << 62).to_s)
        answer = wait(180, "#{url}/post does not answer 202") { ask(url, "/post", text, "202") }
        machine.ui.info("POST #{url}/post  #{answer}")
        text
      end

      urls.product(texts) do |url, text|
        wait(10, "#{url}/get does not show #{text}") { ask(url, "/get?limit=20", nil, "200")&.include?(text) }
      end

      machine.ui.success("GET shows each message at both")
      machine.ui.success("running: POST #{urls.map { |url| "#{url}/post" }.join(" and ")}, GET …/get and …/stream")
      machine.ui.success("the CA of its certificates, for curl --cacert: #{@ca}")
    end

    private

    def wait(seconds, complaint)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds * patience

      until (found = yield)
        raise Failed, text: complaint if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

        sleep 0.5
      end

      found
    end

    # Returns the body of an answer with that status, or nil.
    def ask(url, path, text, status)
      uri = URI(url + path)
      http = Net::HTTP.new(uri.host, uri.port, nil)
      http.use_ssl = true
      http.ca_file = @ca
      http.open_timeout = 5
      http.read_timeout = 60

      answer = if text
                 http.post(uri.request_uri, text, "Content-Type" => "application/json")
               else
                 http.get(uri.request_uri)
               end

      answer.body.chomp if answer.code == status
    rescue SystemCallError, IOError, OpenSSL::SSL::SSLError, Timeout::Error, Net::ProtocolError, Net::HTTPBadResponse
      nil
    end
  end


  class Failed < Vagrant::Errors::VagrantError
    def initialize(message)
      @text = message[:text]
      super
    end

    def error_message
      "ngx_pgq: #{@text}"
    end
  end


  class Config < Vagrant.plugin("2", :config)
    attr_accessor :cluster, :host
  end


  # The provisioner: sets up one machine.
  class Setup < Vagrant.plugin("2", :provisioner)
    GIVEN = "/root/ngx_pgq".freeze
    DONE = "ngx_pgq: done".freeze

    def provision
      @kept = @machine.env.local_data_path.join("ngx_pgq").to_s
      FileUtils.mkdir_p(@kept, mode: 0o700)

      cluster = config.cluster
      host = config.host

      make("parts", digest(BUILD), "building for Debian 13", "provision/cluster/parts made")
      names = ENV.fetch("NGX_PGQ_NAMES", "")
      make("secrets", [*cluster.peers, *names.split].join(" "), "making CA, keys and passwords",
           "NGX_PGQ_NAMES='#{names}' provision/cluster/secrets made/secrets #{cluster.peers.join(" ")}")

      give(SCRIPTS, "made/parts" => "parts", "made/secrets/#{host[:name]}" => "secrets/#{host[:name]}")
      run("(cd #{GIVEN} && provision/cluster/kit /root/kit #{host[:name]} made/parts made/secrets) && rm -rf #{GIVEN} && " \
          "#{cluster.settings.join(" ")} /root/kit/provision/host/setup " \
          "#{host[:name]} #{cluster.address(host)} #{host[:role]} #{cluster.peers.join(" ")}")
    end

    private

    # Runs COMMAND once to create NAME; again only when its inputs (origin) changed.
    def make(name, origin, news, command)
      stamp = File.join(@kept, "#{name}.origin")
      return if File.exist?(stamp) && File.read(stamp) == origin

      @machine.ui.info("#{news} (once)")
      FileUtils.rm_f(stamp)
      give(SOURCES, name == "secrets" ? { "made/secrets" => "secrets" } : {})
      parcel do |there|
        run("(cd #{GIVEN} && mkdir -p made && #{command} && umask 077 && tar -C made -cf #{there} #{name}) && rm -rf #{GIVEN} && " \
            "chown #{@machine.ssh_info[:username]} #{there}")
        take(name, there)
      end
      File.write(stamp, origin, perm: 0o600)
    end

    # Yields the name of a file on the machine, in a directory that mktemp makes for Vagrant's user: no other user can
    # predict its name or read it.
    def parcel
      said = +""
      @machine.communicate.execute("mktemp -d /tmp/ngx_pgq.XXXXXXXX") { |stream, text| said << text if stream == :stdout }
      directory = said.strip
      raise Failed, text: "#{config.host[:name]} did not make a directory" unless directory.start_with?("/tmp/ngx_pgq.")

      yield "#{directory}/parcel.tar"
      run("rm -rf #{directory}")
    end

    # Copies directories of this repository and kept files to GIVEN on the machine.
    def give(directories, kept)
      here = File.join(@kept, "parcel.tar")

      File.open(here, "wb", 0o600) do |file|
        Gem::Package::TarWriter.new(file) do |tar|
          directories.each { |directory| pack(tar, File.join(TOP, directory), directory, MADE) }
          kept.each { |to, from| pack(tar, File.join(@kept, from), to) }
        end
      end

      parcel do |there|
        @machine.communicate.upload(here, there)
        run("umask 077 && rm -rf #{GIVEN} && mkdir #{GIVEN} && tar -C #{GIVEN} --no-same-owner -xmf #{there}")
      end
    ensure
      FileUtils.rm_f(here)
    end

    # A script is recognized by its first line: not every system has the executable bit.
    def pack(tar, directory, name, without = nil)
      NgxPgq.files(directory, without).each do |file|
        text = File.binread(File.join(directory, file))
        tar.add_file_simple("#{name}/#{file}", text.start_with?("#!") ? 0o755 : 0o644, text.bytesize) { |to| to.write(text) }
      end
    end

    # Replaces the kept directory of that name by the one in the file on the machine.
    def take(name, there)
      here = File.join(@kept, "parcel.tar")
      FileUtils.touch(here)
      File.chmod(0o600, here)
      @machine.communicate.download(there, here)
      FileUtils.rm_rf(File.join(@kept, name))

      File.open(here, "rb") do |file|
        Gem::Package::TarReader.new(file).each do |entry|
          next unless entry.file?

          to = File.join(@kept, entry.full_name)
          FileUtils.mkdir_p(File.dirname(to))
          File.binwrite(to, entry.read.to_s, perm: 0o600)
        end
      end
    ensure
      FileUtils.rm_f(here)
    end

    # Runs a command as root. Vagrant takes a lost connection for success: so the command has to print DONE at its end.
    def run(command)
      done = false
      rest = Hash.new("")

      show = lambda do |line|
        done ||= line == DONE
        @machine.ui.detail(line) unless line == DONE || line.strip.empty?
      end

      @machine.communicate.sudo("(#{command}) < /dev/null && echo #{DONE}") do |stream, text|
        *lines, rest[stream] = (rest[stream] + text).split("\n", -1)
        rest[stream] ||= ""
        lines.each(&show)
      end

      rest.each_value(&show)
      raise Failed, text: "the connection to #{config.host[:name]} broke: vagrant provision #{config.host[:name]}" unless done
    end

    def digest(names)
      sum = Digest::SHA256.new

      names.each do |name|
        path = File.join(TOP, name)
        files = File.file?(path) ? [path] : NgxPgq.files(path, MADE).map { |file| File.join(path, file) }
        files.each { |file| sum << file.delete_prefix(TOP) << "\0" << File.binread(file) << "\0" }
      end

      sum.hexdigest
    end
  end


  # Returns the files below a directory, without build results.
  def self.files(path, without = nil)
    Dir.glob("**/*", base: path).select { |file| File.file?(File.join(path, file)) && !without&.match?(file) }.sort
  end


  class Plugin < Vagrant.plugin("2")
    name "ngx_pgq"
    config(:ngx_pgq, :provisioner) { Config }
    provisioner(:ngx_pgq) { Setup }
  end
end
