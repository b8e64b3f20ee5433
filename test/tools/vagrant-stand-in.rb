# A stand-in for Vagrant with what our Vagrantfile needs: reads it, and provisions its machines in directories of this machine.
# Called by test/whole/052_vagrant.t:
#
#   ruby vagrant-stand-in.rb DIR MACHINE...
#
# DIR/MACHINE/ is the root directory of a machine, DIR/.vagrant the state of Vagrant. The script DIR/package runs in place of
# provision/package/repository. Each file that is sent to a machine is kept as DIR/sent/MACHINE.N. Prints the messages for
# each machine and its output. With BREAKS=MACHINE in the environment the connection to that machine breaks during setup;
# Vagrant takes this for a reboot, and for success.

require "etc"
require "fileutils"
require "open3"
require "pathname"

DIR, *MACHINES = ARGV

module Vagrant
  module Errors
    class VagrantError < StandardError
      def initialize(*)
        super(error_message)
      end
    end
  end

  class Part
    def self.name(*) end
    def self.config(*) end
    def self.provisioner(*) end
  end

  class Provisioner
    attr_reader :config

    def initialize(machine, config)
      @machine = machine
      @config = config
    end
  end

  def self.plugin(_, kind = nil)
    { nil => Part, config: Object, provisioner: Provisioner }.fetch(kind)
  end

  def self.configure(_)
    yield $vagrant = Any.new
  end
end

# Accepts and remembers any setting. A block of a setting gets another object of this class.
class Any
  attr_reader :set

  def initialize
    @set = []
  end

  def method_missing(name, *values)
    inner = Any.new
    @set << [name, values, inner]
    yield(inner, inner) if block_given?
    inner
  end

  def respond_to_missing?(*)
    true
  end

  def all(wanted)
    set.flat_map { |name, values, inner| (name == wanted ? [[values, inner]] : []) + inner.all(wanted) }
  end
end

Machine = Struct.new(:name, :root) do
  def env = self
  def communicate = self
  def ui = self
  def local_data_path = Pathname.new("#{DIR}/.vagrant")
  def root_path = Pathname.new(File.expand_path("../..", __dir__))
  def ssh_info = { username: Etc.getpwuid.name }
  def info(text) = puts("#{name}: #{text}")
  alias_method :detail, :info

  def upload(from, to)
    FileUtils.cp(from, root + to, preserve: true)
    FileUtils.cp(from, "#{DIR}/sent/#{name}.#{Dir.children("#{DIR}/sent").size}")
  end

  def download(from, to)
    FileUtils.cp(root + from, to)
  end

  # As the user of the machine. The only command is one that makes a directory.
  def execute(command)
    output, = Open3.capture2(command.sub(%r{ /tmp/}, " #{root}/tmp/"))
    yield :stdout, output.delete_prefix(root)
  end

  def sudo(command)
    command = command.gsub(%r{(?<![\w.])/(?=root/|tmp/)}, "#{root}/")
    command = command.gsub("provision/package/repository", "#{DIR}/package")
    command = command.gsub("#{root}/root/kit/provision/host/setup", "NGX_PGQ_ROOT=#{root} \\0")
    output, status = Open3.capture2e("bash", "-c", command)
    raise "#{name}: #{command}\n#{output}" unless status.success?

    output = output[0, 5] if ENV["BREAKS"] == name && command.include?("host/setup")
    output.scan(/.{1,7}/m) { |piece| yield :stdout, piece }
  end
end

load File.expand_path("../../Vagrantfile", __dir__)

$vagrant.all(:define).each do |(name), node|
  next unless MACHINES.include?(name)

  FileUtils.mkdir_p(["#{DIR}/#{name}/root", "#{DIR}/#{name}/tmp", "#{DIR}/sent"])
  settings = node.all(:provision).first.last
  config = NgxPgq::Config.new
  settings.set.each { |set, values| config.public_send(set, *values) }
  NgxPgq::Setup.new(Machine.new(name, "#{DIR}/#{name}"), config).provision
end
